"""An operator's tasks, done in a real browser on a real fleet."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.browser_rig import Desk


def test_draining_a_node_and_taking_it_back(desk: Desk) -> None:
    """Two clicks, a page that says what follows, and the state on the map, without reloading."""
    desk.go("/fleet")
    desk.shot("fleet")
    desk.page.locator("#cordon-general-1").click()
    expect(desk.page.get_by_role("heading", name="Cordon node general-1?")).to_be_visible()
    desk.shot("cordon")
    desk.page.get_by_role("button", name="Cordon").click()
    expect(desk.page.get_by_role("status").first).to_contain_text("general-1 is cordoned")
    row = desk.page.locator("#node-general-1")
    expect(row).to_contain_text("cordoned")
    desk.api("POST", "/v1/nodes/general-1/state", json={"state": "active"})
    expect(row).to_contain_text("active")

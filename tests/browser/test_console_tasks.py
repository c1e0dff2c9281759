"""An operator's tasks, done in a real browser on a real fleet."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.browser_rig import Desk

LONG_S = 600.0


def held(desk: Desk, *, seconds: float = LONG_S, **more: str) -> str:
    """A call that runs until it is cancelled, and is seen to run; its id."""
    call = desk.call("probe.sleep", {"seconds": seconds}, **more)
    desk.go(f"/calls/{call}")
    expect(desk.page.locator(".verdict")).to_contain_text("running")
    return call


def test_finding_the_slow_call_and_cancelling_it(desk: Desk) -> None:
    """From the list, by state and duration, to the call; its end is seen without reloading."""
    for number in range(6):
        desk.call("probe.echo", {"number": number}, wait_s=30, project="webshop")
    call = held(desk, project="nightly")
    desk.call("probe.fail", {"message": "the invoice has no number"}, wait_s=30, project="billing")
    desk.go("/calls")
    desk.shot("calls")
    desk.page.get_by_label("State").select_option("open")
    desk.page.get_by_label("Took at least").select_option("1")
    desk.page.get_by_role("button", name="Filter").click()
    row = desk.page.locator(f"#call-{call}")
    expect(row).to_contain_text("running")
    expect(desk.page.locator("tbody tr")).to_have_count(1)
    row.get_by_role("link").click()
    desk.page.get_by_role("link", name="Cancel").click()
    expect(desk.page.get_by_role("heading", name=re.compile("Cancel probe.sleep"))).to_be_visible()
    desk.page.get_by_role("button", name="Cancel the call").click()
    expect(desk.page.get_by_role("status").first).to_contain_text("told to stop")
    expect(desk.page.locator(".verdict")).to_contain_text("cancelled")
    expect(desk.page.locator(".life")).to_contain_text("started on")
    desk.shot("call")


def test_seeing_why_a_call_waits_and_letting_it_go(desk: Desk) -> None:
    """A project is paused: the first page says so, the call says why, and resuming it is two clicks away."""
    desk.go("/queues")
    desk.api("POST", "/v1/pauses", json={"kind": "project", "name": "payroll", "is_paused": True})
    call = desk.call("probe.echo", {"month": "november"}, project="payroll")
    desk.call("probe.fail", {"message": "the printer is out of paper"}, wait_s=30, project="billing")
    desk.go("")
    expect(desk.page.locator(".matters")).to_contain_text("Project payroll is paused")
    row = desk.page.get_by_role("row").filter(has=desk.page.locator(f'a[href$="{call}"]'))
    expect(row).to_contain_text("payroll")
    desk.shot("overview")
    row.get_by_role("link").click()
    expect(desk.page.get_by_role("heading", name="Why")).to_be_visible()
    expect(desk.page.locator("#live")).to_contain_text("paused")
    desk.go("/queues")
    desk.shot("queues")
    desk.page.get_by_role("link", name="Resume project payroll").click()
    desk.page.get_by_role("button", name="Resume").click()
    expect(desk.page.get_by_role("status").first).to_contain_text("Project payroll runs again")
    desk.go(f"/calls/{call}")
    expect(desk.page.locator(".verdict")).to_contain_text("succeeded")
    desk.shot("call-succeeded")


def test_cordoning_and_taking_back_a_node(desk: Desk) -> None:
    """A page that says what follows, and the state on the map, without reloading."""
    for number in range(7):
        desk.call("probe.sleep", {"seconds": 20}, idempotency_key=f"load-{number}")
    desk.go("/fleet")
    expect(desk.page.locator("#pulse")).to_have_attribute("data-state", "on")
    desk.shot("fleet")
    desk.page.locator("#drain-general-1").click()
    expect(desk.page.get_by_role("heading", name="Drain node general-1?")).to_be_visible()
    desk.shot("drain")
    desk.page.get_by_role("link", name="Leave it as it is").click()
    desk.page.locator("#cordon-general-1").click()
    desk.page.get_by_role("button", name="Cordon").click()
    expect(desk.page.get_by_role("status").first).to_contain_text("general-1 is cordoned")
    row = desk.page.locator("#node-general-1")
    expect(row).to_contain_text("cordoned")
    desk.api("POST", "/v1/nodes/general-1/state", json={"state": "active"})
    expect(row).to_contain_text("active")


def test_reading_what_a_call_was_given_and_where_its_log_lines_are(desk: Desk) -> None:
    """Its arguments as they were sent, its trace, and the command that finds its lines; they stay while it goes on."""
    call = held(desk, seconds=LONG_S, project="ledger")
    given = desk.page.locator("#arguments")
    expect(given).to_contain_text("seconds")
    expect(given).to_contain_text("600")
    trace = desk.api("GET", f"/v1/invocations/{call}")["trace_id"]
    facts = desk.page.locator("section").filter(has=desk.page.get_by_role("heading", name="Trace and logs")).last
    expect(facts).to_contain_text(trace)
    expect(facts).to_contain_text(f"mcpfleet logs {call}")
    desk.api("POST", f"/v1/invocations/{call}/cancel")
    expect(desk.page.locator(".verdict")).to_contain_text("cancelled")
    expect(given).to_contain_text("600")
    desk.shot("call-arguments")


def test_filtering_by_project(desk: Desk) -> None:
    """The address carries the filter, so it can be sent to somebody."""
    ours = desk.call("probe.echo", {"a": 1}, wait_s=30, project="reports")
    other = desk.call("probe.echo", {"a": 2}, wait_s=30, project="website")
    desk.go("/calls")
    desk.page.get_by_label("Project").fill("reports")
    desk.page.get_by_label("Project").press("Enter")
    expect(desk.page.locator(f"#call-{ours}")).to_be_visible()
    expect(desk.page.locator(f"#call-{other}")).to_have_count(0)
    assert "project=reports" in desk.page.url
    desk.page.reload()
    expect(desk.page.get_by_label("Project")).to_have_value("reports")
    expect(desk.page.locator(f"#call-{other}")).to_have_count(0)


def test_reading_why_a_call_failed(desk: Desk) -> None:
    """From the first page to the tool's own words."""
    call = desk.call("probe.fail", {"message": "the invoice has no number"}, wait_s=30, project="billing")
    desk.go("")
    row = desk.page.get_by_role("row").filter(has=desk.page.locator(f'a[href$="{call}"]'))
    row.get_by_role("link").click()
    expect(desk.page.locator(".verdict")).to_contain_text("failed")
    expect(desk.page.locator(".life")).to_contain_text("released to")
    expect(desk.page.get_by_role("link", name="Call again")).to_be_visible()


def test_new_calls_appear_by_themselves_and_leave_alone_what_is_written(desk: Desk) -> None:
    """The list is fetched again, and a half-written filter, its focus and its value stay."""
    desk.go("/calls")
    field = desk.page.get_by_label("Tool")
    field.fill("probe.ec")
    call = desk.call("probe.echo", {"a": 3}, wait_s=30)
    expect(desk.page.locator(f"#call-{call}")).to_contain_text("succeeded")
    expect(field).to_have_value("probe.ec")
    expect(field).to_be_focused()


def test_the_stream_can_be_held(desk: Desk) -> None:
    """Who reads may stop what moves. Source: WCAG 2.2, success criterion 2.2.2."""
    desk.go("/calls")
    button = desk.page.locator("#pulse")
    expect(button).to_contain_text("Live")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    expect(button).to_contain_text("Paused")
    call = desk.call("probe.echo", {"a": 4}, wait_s=30)
    button.click()
    expect(desk.page.locator(f"#call-{call}")).to_be_visible()


def test_a_revoked_key_is_shown_the_door(desk: Desk) -> None:
    """By the open page itself, at its next breath."""
    key = desk.api("POST", "/v1/keys", json={"name": "leaver", "roles": ["operator"]})
    desk.page.locator(".me summary").click()
    desk.page.get_by_role("button", name="Log out").click()
    desk.log_in(key["key"])
    desk.go("/fleet")
    desk.expects("401")
    desk.api("DELETE", f"/v1/keys/{key['id']}")
    expect(desk.page.get_by_label("API key or token")).to_be_visible()
    desk.page.get_by_label("API key or token").fill("not-a-key")
    desk.page.get_by_role("button", name="Log in").click()
    expect(desk.page.get_by_role("alert")).to_contain_text("Nobody knows this key")
    desk.shot("login")


def test_a_page_comes_back_by_itself_when_another_replica_leads(desk: Desk) -> None:
    """While nobody leads, an open page says so and goes on; one that was asked for then loads itself again."""
    nobody = {"content-type": "application/problem+json", "retry-after": "1", "refresh": "2"}
    desk.expects("503")
    desk.go("/calls")
    word = desk.page.locator("#pulse")
    expect(word).to_have_attribute("data-state", "on")
    desk.context.route("**/console/**", lambda route: route.fulfill(status=503, headers=nobody, body="{}"))
    word.click()  # held, and let go: it asks for its stream anew
    word.click()
    expect(word).to_contain_text("Reconnecting")
    other = desk.context.new_page()
    other.goto(f"{desk.url}/console/fleet")
    expect(other.locator("body")).to_contain_text("{}")
    desk.context.unroute("**/console/**")
    expect(other.get_by_role("heading", level=1)).to_have_text("Fleet")
    expect(word).to_have_attribute("data-state", "on")
    call = desk.call("probe.echo", {"a": 5}, wait_s=30)
    expect(desk.page.locator(f"#call-{call}")).to_be_visible()

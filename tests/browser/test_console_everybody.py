"""The console for everybody: by keyboard, on a phone, in the dark, and without scripts."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from orchestrator.console.pages import PAGES
from tests.browser.browser_rig import Desk

SHOWN = [page for page in PAGES if page.group]


def test_no_page_complains_and_each_has_its_landmarks(desk: Desk) -> None:
    """Every page of the navigation, from the navigation; no refused script, no error, one heading of the first rank."""
    for page in SHOWN:
        desk.go("")
        desk.page.get_by_role("navigation", name="Pages").get_by_role("link", name=page.title, exact=True).click()
        expect(desk.page.get_by_role("heading", level=1)).to_have_count(1)
        expect(desk.page.get_by_role("main")).to_be_visible()
        here = desk.page.locator('nav a[aria-current="page"]')
        assert here.all_inner_texts() == [page.title]
        assert desk.overflow_px() <= 0, page.path


def test_every_page_fits_a_phone(phone: Desk) -> None:
    """360 pixels: tables become cards, and nothing has to be pushed to the side."""
    call = phone.call("probe.fail", {"message": "no-place-to-break-" * 12}, wait_s=30, project="on-the-road")
    for page in [*(page.path for page in SHOWN), f"/calls/{call}"]:
        phone.go(page)
        expect(phone.page.get_by_role("heading", level=1)).to_be_visible()
        assert phone.overflow_px() <= 0, page
        if page in {"", "/fleet"}:
            phone.shot(f"phone{page.replace('/', '-') or '-overview'}", whole=False)
    phone.go("/fleet/general-2/cordon")
    expect(phone.page.get_by_role("button", name="Cordon")).to_be_visible()


def test_a_node_is_cordoned_by_keyboard_alone(desk: Desk) -> None:
    """Skip link first, then buttons and links in the order of reading; where the focus is can be seen."""
    keys = desk.page.keyboard
    desk.go("/fleet")
    keys.press("Tab")
    expect(desk.page.get_by_role("link", name="Skip to content")).to_be_focused()
    keys.press("Enter")
    for _ in range(40):
        keys.press("Tab")
        if desk.page.evaluate("document.activeElement.id") == "cordon-builders-1":
            break
    focused = desk.page.locator("#cordon-builders-1")
    expect(focused).to_be_focused()
    assert desk.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keys.press("Enter")
    expect(desk.page.get_by_role("heading", name="Cordon node builders-1?")).to_be_visible()
    for _ in range(40):
        keys.press("Tab")
        if desk.page.evaluate("document.activeElement.innerText") == "Cordon":
            break
    keys.press("Enter")
    expect(desk.page.get_by_role("status").first).to_contain_text("builders-1 is cordoned")
    desk.api("POST", "/v1/nodes/builders-1/state", json={"state": "active"})


def test_the_dark_follows_the_system_and_can_be_chosen(dark_desk: Desk) -> None:
    """And what was chosen is remembered; text stands out from its ground in both."""
    dark_desk.go("")
    assert _brightness(dark_desk, "background-color") < 60
    assert _brightness(dark_desk, "color") > 180
    dark_desk.shot("overview-dark")
    dark_desk.page.locator(".me summary").click()
    dark_desk.page.get_by_role("button", name="Light").click()
    dark_desk.go("/fleet")
    assert _brightness(dark_desk, "background-color") > 200
    assert _brightness(dark_desk, "color") < 60


def _brightness(desk: Desk, of: str) -> float:
    """0 to 255, of the page's own colour."""
    parts = desk.page.evaluate(f"getComputedStyle(document.body).getPropertyValue({of!r}).match(/\\d+/g).map(Number)")
    return sum(parts[:3]) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_words_can_be_read(fleet: object, desk: Desk, scheme: str) -> None:
    """Contrast of every colour of text on the grounds it stands on. Source: WCAG 2.2, success criterion 1.4.3."""
    desk.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    desk.go("/fleet")
    worst = desk.page.evaluate(CONTRAST)
    assert worst["ratio"] >= 4.5, worst


CONTRAST = """() => {
  const probe = document.createElement('i');
  document.querySelector('main').append(probe);
  const rgb = (name) => {
    probe.className = 'probe';
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(`.probe { color: var(${name}) }`);
    document.adoptedStyleSheets = [sheet];
    return getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  };
  const light = (rgb) => rgb.map((c) => c / 255).map((c) => (c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  let worst = { ratio: 99 };
  for (const ink of ['--ink', '--dim', '--link', '--good', '--busy', '--warn', '--bad'])
    for (const ground of ['--ground', '--sheet', '--raised']) {
      const [a, b] = [light(rgb(ink)), light(rgb(ground))].sort((x, y) => y - x);
      const ratio = (a + .05) / (b + .05);
      if (ratio < worst.ratio) worst = { ratio, ink, ground };
    }
  probe.remove();
  document.adoptedStyleSheets = [];
  return worst;
}"""


def test_without_scripts_every_page_works(plain_desk: Desk) -> None:
    """Pages, filters, questions and forms are plain ones; only what moves by itself is missing."""
    for page in SHOWN:
        plain_desk.go(page.path)
        expect(plain_desk.page.get_by_role("heading", level=1)).to_be_visible()
    expect(plain_desk.page.locator("#pulse")).to_be_hidden()
    plain_desk.go("/fleet/general-2/cordon")
    plain_desk.page.get_by_role("button", name="Cordon").click()
    expect(plain_desk.page.get_by_role("status").first).to_contain_text("general-2 is cordoned")
    plain_desk.api("POST", "/v1/nodes/general-2/state", json={"state": "active"})

"""A real Chromium on a real fleet, for what only a browser can show.

    def test_something(desk: Desk) -> None:
        desk.go("/fleet")
        desk.page.get_by_role("link", name="Drain").first.click()
        desk.shot("drain")

Whatever the browser complains of (an error, a refused script, an answer that is none) fails the test at its end;
`desk.expects` names what a test provokes on purpose.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, expect

WITHIN_MS = 60_000
"""Of a machine that runs other tests at the same time."""
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb")
"""As root Chromium has no sandbox of its own; it opens nothing here but pages of ours."""
expect.set_options(timeout=WITHIN_MS)


def program() -> str | None:
    """A Chromium of this system: Playwright's own are not downloaded."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


@dataclass
class Desk:
    """One person's window, and what it complained of."""

    url: str
    token: str = field(repr=False)
    context: BrowserContext
    page: Page
    shots: Path
    complaints: list[str] = field(default_factory=list)
    expected: list[re.Pattern[str]] = field(default_factory=list)

    def expects(self, pattern: str) -> None:
        """What this test provokes on purpose."""
        self.expected.append(re.compile(pattern))

    def log_in(self, credential: str | None = None) -> None:
        """As the fleet's own operator, or with another key."""
        self.page.goto(f"{self.url}/console/login")
        self.page.get_by_label("API key or token").fill(credential or self.token)
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("navigation", name="Pages")).to_be_visible()

    def go(self, path: str) -> None:
        """A page below /console."""
        self.page.goto(f"{self.url}/console{path}")

    def shot(self, name: str, *, whole: bool = True) -> None:
        """A picture of the page, kept in the run's own folder, or where `make screenshots` says."""
        self.page.evaluate("window.scrollTo(0, 0)")
        self.page.screenshot(path=self.shots / f"{name}.png", full_page=whole, animations="disabled")

    def overflow_px(self) -> int:
        """How much wider the page is than its window: nobody likes to scroll to both sides."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def faults(self) -> list[str]:
        """Complaints that no test expected."""
        return [one for one in self.complaints if not any(pattern.search(one) for pattern in self.expected)]

    # ------------------------------------------------------------ the fleet behind it

    def api(self, method: str, path: str, **sent: Any) -> Any:
        """The HTTP API, as the fleet's own operator."""
        with httpx.Client(trust_env=False, timeout=WITHIN_MS / 1000) as http:
            answer = http.request(method, self.url + path, headers={"Authorization": f"Bearer {self.token}"}, **sent)
        assert answer.is_success, (path, answer.text)
        return answer.json() if answer.content else None

    def call(self, tool: str, arguments: dict[str, Any] | None = None, *, wait_s: float = 0, **more: Any) -> str:
        """A call is accepted, and where asked for waited for; its id."""
        body = {"tool": tool, "arguments": arguments or {}, **more}
        query = f"?wait={wait_s}" if wait_s else ""
        return str(self.api("POST", f"/v1/invocations{query}", json=body)["id"])


def desk_of(browser: Browser, url: str, token: str, shots: Path, **options: Any) -> Desk:
    """A new window without a history; `options` as Playwright's `new_context` takes them."""
    context = browser.new_context(**{"viewport": WIDE, "locale": "en-GB", "timezone_id": "UTC", **options})
    context.set_default_timeout(WITHIN_MS)
    page = context.new_page()
    desk = Desk(url, token, context, page, shots)

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            desk.complaints.append(f"console {message.type}: {message.text}")

    def answered(response: Response) -> None:
        if response.status >= 400:
            desk.complaints.append(f"{response.status} of {response.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: desk.complaints.append(f"page error: {error}"))
    page.on("response", answered)
    return desk

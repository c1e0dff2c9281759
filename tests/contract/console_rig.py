"""The console on a real core, as a browser without scripts would use it: for every test of its pages.

    async with opened(tmp_path, clock) as it:
        await it.story.join("a1")
        page = await it.person("operator")
        answer = await page.get("/fleet")
        await page.submit("/fleet/a1/drain")

Each person has a browser of their own (cookies), logged in with an API key of that role.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from orchestrator.api.settings import ApiSettings
from orchestrator.console.frame import Console
from orchestrator.console.live import Pulse
from orchestrator.console.pages import PAGES
from orchestrator.console.session import Sessions
from orchestrator.identity.doors import Authenticators
from orchestrator.identity.lockout import Lockout
from orchestrator.identity.tokens import Tokens, static
from orchestrator.identity.watched import Watched
from orchestrator.testing.core_app import app_of
from orchestrator.testing.protocol import Story
from tasks.testing.clock import FakeClock

BASE = "http://127.0.0.1:8700"
OPERATOR = "the-fleets-own-token"
ROLES = ("admin", "operator", "developer", "agent", "auditor")
TOKEN = re.compile(r'name="token" value="([^"]+)"')
IDLE_S = 3600.0


@dataclass
class Browser:
    """One person's: keeps cookies, follows no redirect by itself, sends `Origin` with forms."""

    http: httpx.AsyncClient
    token: str = ""
    """Of the last page's forms."""

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """A page below /console."""
        answer = await self.http.get(f"/console{path}", headers=headers)
        found = TOKEN.search(answer.text)
        self.token = found[1] if found else self.token
        return answer

    async def post(
        self, path: str, form: Mapping[str, str] | None = None, *, origin: str | None = BASE, token: str | None = None
    ) -> httpx.Response:
        """A form, with the token of the last page that had one."""
        fields = {"token": self.token if token is None else token, **(form or {})}
        headers = {} if origin is None else {"Origin": origin}
        return await self.http.post(f"/console{path}", data=fields, headers=headers)

    async def submit(self, path: str, form: Mapping[str, str] | None = None) -> httpx.Response:
        """Ask for the page that asks, press its button, and follow to the page that says what became of it."""
        asked = await self.get(path)
        assert asked.status_code == 200, asked.text
        done = await self.post(path, form)
        assert done.status_code == 303, done.text
        return await self.get(done.headers["location"].removeprefix("/console"))

    async def log_in(self, credential: str, path: str = "/login") -> httpx.Response:
        """With a key or a token."""
        return await self.post(path, {"credential": credential})


@dataclass
class Field:
    """The fleet's core, its application, and people."""

    story: Story
    app: Starlette
    pulse: Pulse
    browsers: list[httpx.AsyncClient] = field(default_factory=list)
    keys: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """What the API said of each person's key, by tenant and role."""

    def browser(self, peer: str = "127.0.0.1", base: str = BASE) -> Browser:
        """One that is not logged in."""
        transport = httpx.ASGITransport(self.app, client=(peer, 40_000), raise_app_exceptions=False)
        http = httpx.AsyncClient(transport=transport, base_url=base)
        self.browsers.append(http)
        return Browser(http)

    async def key(self, role: str, tenant: str = "default", **more: Any) -> dict[str, Any]:
        """A new API key."""
        body = {"name": f"{tenant} {role}", "roles": [role], "tenant": tenant, "principal": f"{tenant}-{role}", **more}
        made = await self.api("POST", "/v1/keys", json=body)
        assert made.status_code == 201, made.text
        return dict(made.json())

    async def person(self, role: str, tenant: str = "default") -> Browser:
        """Logged in with a key of that role."""
        self.keys[tenant, role] = key = await self.key(role, tenant)
        browser = self.browser()
        answer = await browser.log_in(key["key"])
        assert answer.status_code == 303, answer.text
        return browser

    async def api(self, method: str, path: str, token: str = OPERATOR, **sent: Any) -> httpx.Response:
        """The HTTP API, as the fleet's own operator unless told otherwise."""
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            return await http.request(method, path, headers={"Authorization": f"Bearer {token}"}, **sent)

    async def call(self, tool: str = "files.read", token: str = OPERATOR, **more: Any) -> str:
        """A call is accepted; its id."""
        made = await self.api("POST", "/v1/invocations", token, json={"tool": tool, "arguments": {}, **more})
        assert made.status_code == 202, made.text
        return str(made.json()["id"])


@asynccontextmanager
async def opened(
    folder: Path, clock: FakeClock, api: ApiSettings | None = None, **settings: Any
) -> AsyncIterator[Field]:
    """A leader on the ledger of this folder, with the console; `api` as its HTTP doors are set up."""
    story = await Story.begin(folder, clock, **settings)
    core, pulse = story.core, Pulse()
    core.happenings.listen(pulse.beat)
    sessions = Sessions(b"the-pool-secret", idle_s=IDLE_S, clock=clock)
    console = Console(PAGES, sessions=sessions, pulse=pulse, clock=clock, version="1.2.3")
    own = Tokens(static(OPERATOR, "the-join-token"), node_of=core.desk.node_of, enrolled=core.enroller.principal)
    doors = Watched(Authenticators([core.keys, own]), lockout=Lockout(), audit=core.audit, clock=clock)
    it = Field(story, app_of(core, OPERATOR, extra_routes=console.routes(), doors=doors, settings=api), pulse)
    try:
        yield it
    finally:
        for http in it.browsers:
            await http.aclose()
        await story.end()

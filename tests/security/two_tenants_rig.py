"""A fleet with two tenants on a real core: one has something of everything, the other one wants it.

Whatever the first one has written, its own name included, has a canary word in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from orchestrator.assembly import fleet_of, views_of
from orchestrator.front.app import McpFront
from orchestrator.front.settings import FrontSettings
from orchestrator.identity.doors import Authenticators
from orchestrator.oauth import oauth_of
from orchestrator.settings import OrchestratorSettings
from orchestrator.testing.core_app import app_of
from orchestrator.testing.protocol import PlayedNode, Story, held
from tasks.approval import Question, digest
from tasks.envelope import Delivery
from tasks.ledger_events import Asked
from tasks.node import Control, Phase
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.spend import Spend
from tasks.testing.clock import FakeClock

CANARY = "canary"
OURS, RIVAL = f"{CANARY}-acme", "rival"
BASE = "http://127.0.0.1:8700"
OPERATOR = "the-fleets-own-token"
ROLES = ("admin", "operator", "developer", "agent", "auditor")
QUESTION = "question-0001"
TEXT = f'{{"command":"{CANARY}"}}'


class Silence:
    """Control streams that nobody reads."""

    async def say(self, node: str, control: Control) -> None:
        """Not kept."""


@dataclass
class Field:
    """The fleet, an HTTP client without credentials, and what our tenant has."""

    story: Story
    http: httpx.AsyncClient
    operations: tuple[Any, ...]
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    """By tenant and role."""
    calls: dict[str, str] = field(default_factory=dict)
    """Ids of our calls by what became of them: done, dead, asks, waits."""
    key: str = ""
    client: str = ""
    blob: str = ""

    async def ask(self, who: tuple[str, str], method: str, path: str, **sent: Any) -> httpx.Response:
        """As that role of that tenant."""
        headers = {"Authorization": f"Bearer {self.keys[who]}"} | sent.pop("more", {})
        return await self.http.request(method, path, headers=headers, **sent)

    async def do(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        """As our admin, and it works."""
        answer = await self.ask((OURS, "admin"), method, path, **sent)
        assert answer.is_success, (path, answer.text)
        return dict(answer.json())


@asynccontextmanager
async def opened(folder: Path, clock: FakeClock) -> AsyncIterator[Field]:
    """Both doors on one core, everything of ours made."""
    (folder / "secrets").mkdir()
    (folder / "secrets" / f"{OURS}.shop.stripe").write_text(f"{CANARY}-value")
    story = await Story.begin(folder, clock, secrets_dir=folder / "secrets")
    core = story.core
    core.approvals.voice = Silence()
    wanted = OrchestratorSettings.model_validate({"token": "t", "join_token": "j", "oauth_server": True})
    oauth = oauth_of(wanted, address="127.0.0.1:8700", books=core.stores.ledger.oauth, sealer=None, clock=clock)
    await oauth.restore()
    app = app_of(core, OPERATOR, oauth=oauth.server)
    front = McpFront(fleet_of(core, views_of(core)), Authenticators([core.keys]), FrontSettings(), clock)
    both = Starlette(routes=[*front.routes(), *app.routes])
    async with _running(front), httpx.AsyncClient(transport=httpx.ASGITransport(both), base_url=BASE) as http:
        it = Field(story, http, app.state.operations)
        await _let_in(it)
        await _fill(it)
        yield it
    await oauth.close()
    await story.end()


@asynccontextmanager
async def _running(front: McpFront) -> AsyncIterator[None]:
    """In a task of its own: a fixture ends in another one than it began in, which anyio's scopes refuse."""
    started, over = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        async with front.running():
            started.set()
            await over.wait()

    task = asyncio.create_task(run())
    await started.wait()
    yield
    over.set()
    await task


async def _let_in(it: Field) -> None:
    for tenant in (OURS, RIVAL):
        for role in ROLES:
            body = {"name": f"{tenant} {role}", "roles": [role], "tenant": tenant, "principal": f"{tenant}-{role}"}
            answer = await it.http.post("/v1/keys", json=body, headers={"Authorization": f"Bearer {OPERATOR}"})
            it.keys[tenant, role] = answer.json()["key"]


async def _fill(it: Field) -> None:
    """Calls that ended well, badly, ask, and wait; a key, a client, a secret, a blob; money, and audit rows."""
    node = await it.story.join("a1", slots=1)
    done = await _released(it, node, "done")
    spent = (Spend("glm-5", 3, 30, 9, cost_usd=0.75),)
    result = f'{{"content":[{{"type":"text","text":"{CANARY}"}}]}}'
    await it.story.finish("a1", done, Outcome("succeeded", result_json=result, spent=spent))
    dead = await _released(it, node, "dead")
    await it.story.finish("a1", dead, Outcome("failed", error=ErrorInfo("tool_failed", CANARY, Failure.PERMANENT)))
    asks = await _released(it, node, "asks")
    now = it.story.clock.wall_s()
    question = Question(QUESTION, CANARY, TEXT, digest(TEXT), asked_at=now, expires_at=now + 3600)
    await it.story.core.approvals.asked([("a1", Asked(asks.invocation, asks.fence, question))])
    await _call(it, "waits")
    it.key = (await it.do("POST", "/v1/keys", json={"name": CANARY, "roles": ["agent"]}))["id"]
    it.client = (await it.do("POST", "/v1/oauth/clients", json={"name": CANARY, "roles": ["agent"]}))["client_id"]
    await it.do("PUT", "/v1/secrets/shop/stripe", json={"source": "file", "nodes": [f"{CANARY}-node"]})
    it.blob = await it.story.core.stores.blobs.put(CANARY.encode())


async def _call(it: Field, name: str) -> None:
    body = {"tool": "files.read", "arguments": {"of": CANARY}, "project": f"{CANARY}-shop", "idempotency_key": name}
    it.calls[name] = (await it.do("POST", "/v1/invocations", json=body))["id"]


async def _released(it: Field, node: PlayedNode, name: str) -> Delivery:
    await _call(it, name)
    (delivery,) = await it.story.release()
    await it.story.renew(node, held(delivery, Phase.RUNNING))
    return delivery

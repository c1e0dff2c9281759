"""Bodies that take their time: what strangers may send, and what was revoked before the last byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from orchestrator.api.door import AT_ONCE_BYTES, STRANGERS_BYTES
from orchestrator.front.app import McpFront
from orchestrator.identity.doors import Authenticators
from orchestrator.ledger.key_values import WantedKey
from orchestrator.testing.core_app import app_of
from orchestrator.testing.front import SETTINGS
from orchestrator.testing.inprocess_fleet import InProcessFleet
from orchestrator.testing.protocol import Story
from tasks.invocation import Call, Principal
from tasks.scopes import Role
from tasks.testing.clock import FakeClock

OPERATOR = "the-fleets-own-token"
ROOT = Principal("root", roles=frozenset({Role.ADMIN}))


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    """A leader."""
    made = await Story.begin(tmp_path, FakeClock())
    yield made
    await made.end()


@pytest.fixture
async def http(story: Story) -> AsyncIterator[httpx.AsyncClient]:
    """Its API, which is handed a body part by part."""
    app = app_of(story.core, OPERATOR)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8700") as client:
        yield client


async def admin_key(story: Story) -> tuple[str, str]:
    """Id and key of an admin."""
    issued = await story.core.keys.issue(WantedKey("k", "k", "default", frozenset({Role.ADMIN}), None), ROOT)
    assert issued.key is not None
    return issued.row.id, issued.key


async def test_a_credential_revoked_while_the_body_came_makes_nothing(story: Story, http: httpx.AsyncClient) -> None:
    """Else a thief holds a request open until he is found, and has a key of his own then."""
    key_id, key = await admin_key(story)

    async def body() -> AsyncIterator[bytes]:
        yield b'{"name": "another", '
        await story.core.keys.revoke(key_id, ROOT)
        yield b'"roles": ["admin"]}'

    answer = await http.post("/v1/keys", content=body(), headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 401
    assert story.core.keys.listing(ROOT) == []


async def test_the_mcp_door_looks_again_too(story: Story) -> None:
    """A tools/call whose body came after its key was revoked is not made."""
    key_id, key = await admin_key(story)
    calls: list[Call] = []

    async def run(call: Call, _progress: object) -> str:
        calls.append(call)
        return "{}"

    front = McpFront(InProcessFleet([], run), Authenticators([story.core.keys]), SETTINGS)

    async def body() -> AsyncIterator[bytes]:
        yield b'{"jsonrpc": "2.0", "id": 1, '
        await story.core.keys.revoke(key_id, ROOT)
        yield b'"method": "tools/list", "params": {}}'

    [route] = front.routes()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with (
        front.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(route.endpoint), base_url="http://127.0.0.1") as client,  # type: ignore[attr-defined]
    ):
        answer = await client.post("/mcp", content=body(), headers=headers)
    assert (answer.status_code, calls) == (401, [])


@pytest.mark.parametrize("path", ["/v1/auth/challenges", "/v1/auth/sessions"])
async def test_a_stranger_sends_little(http: httpx.AsyncClient, path: str) -> None:
    """Said beforehand or not: nothing of it is parsed."""
    big = orjson.dumps({"key": [{"a": 1}] * 2000})

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(big), 1000):
            yield big[at : at + 1000]

    assert len(big) > STRANGERS_BYTES
    for content in (big, parts()):
        answer = await http.post(path, content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_a_large_body_of_somebody_known_is_still_read(http: httpx.AsyncClient) -> None:
    """Beside the loop, with the same answers."""
    body = {"calls": [{"tool": "no.such", "arguments": {"x": "y" * AT_ONCE_BYTES}}]}
    answer = await http.post("/v1/invocations:batch", json=body, headers={"Authorization": f"Bearer {OPERATOR}"})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_tool")

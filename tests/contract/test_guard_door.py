"""AuthGuardian as strangers meet it: the SDK's own client and the command line, over a socket, on a real ledger."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from starlette.applications import Starlette

from orchestrator.cli import main
from orchestrator.front.grants import PATH, GuardFront
from orchestrator.front.settings import FrontSettings
from orchestrator.identity.doors import Authenticators
from orchestrator.ledger.grant_shelf import GrantRows
from orchestrator.ledger.ledger import Ledger
from orchestrator.presented import Presented
from orchestrator.refused_calls import Refusing
from orchestrator.testing.audit import MemoryBook, memory_audit
from orchestrator.testing.guard import AGENT, BUZZWORDS, OTHER_AGENT, PERSON, STRANGER, Rig, rig_of
from orchestrator.testing.serving import serving
from tasks.clock import SystemClock
from tasks.invocation import Principal

WITHIN_S = 60.0
ERAS = ["legacy", "2026-07-28"]


class Named:
    """A token is its holder's name."""

    async def principal(self, presented: Presented) -> Principal | None:
        """Who that is."""
        known = {"t-ann": AGENT, "t-ben": OTHER_AGENT, "t-paula": PERSON, "t-other": STRANGER}
        return known.get(presented.token)


@dataclass
class Door:
    """The door, and what is behind it."""

    url: str
    rig: Rig
    folder: Path
    front: GuardFront

    @asynccontextmanager
    async def client(self, token: str, mode: str = "2026-07-28", **more: Any) -> AsyncIterator[Client]:
        """The SDK's."""
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=WITHIN_S) as http,
            Client(streamable_http_client(f"{self.url}{PATH}", http_client=http), mode=mode, **more) as client,
        ):
            yield client

    async def cli(self, token: str | None, *argv: str, **environ: str) -> tuple[int, str, str]:
        """Status, standard output and standard error of one command."""
        given: Mapping[str, str] = {
            "MCPFLEET_STATE_DIR": str(self.folder / "state"),
            **({} if token is None else {"MCPFLEET_TOKEN": token}),
            **environ,
        }
        out, err = io.StringIO(), io.StringIO()
        status = await asyncio.to_thread(main.run, argv, environ=given, out=out, err=err, stdin=io.BytesIO())
        return status, out.getvalue(), err.getvalue()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Open."""
    clock = SystemClock()
    ledger = await Ledger.open(f"sqlite:///{tmp_path}/ledger.db", clock=clock)
    rows = GrantRows(ledger)
    rig = rig_of(clock, store=rows)
    rig.guardian.restore(await rows.all(), await rows.keys())
    front = GuardFront(rig.guardian, Authenticators([Named()]), FrontSettings(), clock, types=rig.guardian.types)
    rig.guardian.on_change = front.changed
    app = Starlette(routes=front.routes(), lifespan=lambda _: front.running())
    async with serving(app) as url:
        yield Door(url, rig, tmp_path, front)
    await ledger.close()


def asks(agent: str = "ann", kind: str = "SAP_API", **more: Any) -> dict[str, Any]:
    """Arguments of request_permission."""
    return {"agent_id": agent, "resource_type": kind, "justification": BUZZWORDS, "wait_s": 0, **more}


async def said(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A tool's structured answer."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return dict(result.structured_content or {})


async def read(client: Client, uri: str) -> dict[str, Any]:
    """A resource's content."""
    content = (await client.read_resource(uri)).contents[0]
    return dict(json.loads(content.text))  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ERAS)
async def test_an_agent_asks_uses_and_gives_back(door: Door, mode: str) -> None:
    """The three tools, and what the resources say meanwhile; no resource ever shows a token."""
    async with door.client("t-ann", mode) as client:
        granted = await said(client, "request_permission", asks(scope="orders:read stock:read"))
        assert (granted["status"], granted["scope"]) == ("granted", ["orders:read", "stock:read"])
        check = {"token": granted["token"], "agent_id": "ann", "resource_type": "SAP_API"}
        assert (await said(client, "validate_token", check))["valid"] is True
        active = await read(client, "grants://active")
        assert [one["id"] for one in active["grants"]] == [granted["id"]]
        assert granted["token"] not in json.dumps(active)
        assert (await said(client, "revoke_token", {"token": granted["token"]}))["status"] == "revoked"
        assert await said(client, "validate_token", check) == {"valid": False, "why": "revoked"}
        assert (await read(client, "grants://active"))["grants"] == []
        events = (await read(client, "grants://audit"))["events"]
        assert {one["act"] for one in events} == {"revoked", "granted", "requested"}
        assert BUZZWORDS in json.dumps(events)


async def test_what_a_model_can_mend_it_is_told(door: Door) -> None:
    """`isError`, in words."""
    async with door.client("t-ann") as client:
        for arguments, words in (
            (asks(kind="SAP"), "did you mean 'SAP_API'"),
            (asks("ben"), "may not ask for 'ben'"),
            (asks(scope=["*"]), "has no scope '*'"),
            (asks(lifetime_s=-5), "lifetime_s"),
            (asks(lifetime_s="600"), "lifetime_s"),
            (asks() | {"justification": "please"}, "characters or more"),
            (asks(admin=True), "admin"),
        ):
            result = await client.call_tool("request_permission", arguments)
            assert result.is_error, arguments
            assert words in result.content[0].text, arguments  # type: ignore[union-attr]
        denied = await said(client, "request_permission", asks(kind="EXTERNAL_SERVICE"))
        assert (denied["status"], "token" in denied) == ("denied", False)


async def test_each_sees_what_is_his(door: Door) -> None:
    """Tools by scope, grants by tenant and agent."""
    async with door.client("t-ann") as ann, door.client("t-ben") as ben, door.client("t-other") as other:
        await said(ann, "request_permission", asks())
        for client in (ben, other):
            for uri in ("grants://active", "grants://audit"):
                assert "ann" not in json.dumps(await read(client, uri))
        assert "answer_request" not in [tool.name for tool in (await ann.list_tools()).tools]
        result = await ann.call_tool("answer_request", {"id": "x", "verdict": "allow", "terms_sha256": "x"})
        assert result.is_error
    async with door.client("t-paula") as paula:
        assert "answer_request" in [tool.name for tool in (await paula.list_tools()).tools]
        assert len((await read(paula, "grants://active"))["grants"]) == 1
        with pytest.raises(MCPError):
            await paula.read_resource("grants://secret")


async def test_without_a_token_nothing_is_said(door: Door) -> None:
    """Neither to a stranger, nor under a name that a web page could rebind."""
    async with httpx2.AsyncClient() as http:
        for headers in ({}, {"authorization": "Bearer nobody"}):
            assert (await http.post(f"{door.url}{PATH}", json={}, headers=headers)).status_code == 401
        known = {"authorization": "Bearer t-ann", "accept": "application/json, text/event-stream"}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        rebound = await http.post(f"{door.url}{PATH}", json=body, headers=known | {"host": "evil.example"})
        assert rebound.status_code == 421


async def test_a_waiting_call_ends_when_a_person_answers(door: Door) -> None:
    """Bounded; and whoever asks again later gets the token too."""
    async with door.client("t-ann") as ann, door.client("t-paula") as paula:
        first = await said(ann, "request_permission", asks(kind="DATA_EXPORT", scope="files"))
        assert (first["status"], "token" in first) == ("pending", False)
        wait = asyncio.create_task(
            said(ann, "request_permission", asks(kind="DATA_EXPORT", request_id=first["id"], wait_s=55))
        )
        [row] = (await read(paula, "grants://pending"))["requests"]
        answer = {"id": row["id"], "verdict": "allow", "terms_sha256": row["terms_sha256"]}
        assert (await said(paula, "answer_request", answer))["decided_by"] == "paula"
        async with asyncio.timeout(WITHIN_S):
            assert (await wait)["token"]


async def test_a_listening_client_hears_of_changes(door: Door) -> None:
    """2026 era; another tenant's client does not."""
    async with door.client("t-ann") as ann, door.client("t-other") as other, asyncio.timeout(WITHIN_S):
        async with (
            ann.listen(resource_subscriptions=["grants://active"]) as events,
            other.listen(resource_subscriptions=["grants://active"]) as others,
        ):
            assert set(door.front._changes._listening) == {"default", "other"}  # each on a bus of its own
            await said(ann, "request_permission", asks())
            await anext(aiter(events))
            await said(other, "request_permission", asks())
            first = await anext(aiter(others))
        assert str(first.uri) == "grants://active"  # type: ignore[union-attr]
        assert len((await read(ann, "grants://active"))["grants"]) == 1


@pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")
async def test_a_session_of_the_handshake_era_hears_of_changes(door: Door) -> None:
    """Over its own stream, once it subscribed."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def handle(message: Any) -> None:
        uri = getattr(getattr(message, "params", None), "uri", None)
        if uri is not None:
            heard.put_nowait(str(uri))

    async with door.client("t-ann", "legacy", message_handler=handle) as ann, asyncio.timeout(WITHIN_S):
        await ann.subscribe_resource("grants://active")
        with pytest.raises(MCPError):
            await ann.subscribe_resource("grants://resources")
        while heard.empty():  # its stream may open after its first requests
            granted = await said(ann, "request_permission", asks())
            await said(ann, "revoke_token", {"token": granted["token"]})
            await asyncio.sleep(0)
        assert await heard.get() == "grants://active"


async def test_the_command_line_asks_from_another_machine(door: Door) -> None:
    """`connect` once, then by what it kept: ask, check, answer, give back."""
    key = door.folder / "key"
    key.write_text("t-ann\n")
    key.chmod(0o600)
    connected = await door.cli(None, "guard", "connect", "--server", f"{door.url}{PATH}", "--token-file", str(key))
    assert (connected[0], "4 resource types" in connected[2]) == (0, True)
    assert "t-ann" not in (door.folder / "state" / "guard.json").read_text()
    ask = ("guard", "request-permission", "--agent", "ann", "--justification", BUZZWORDS, "--wait", "0", "--resource")
    status, token, note = await door.cli(None, *ask, "SAP_API")
    assert (status, token.count("."), "SAP_API" in note) == (0, 2, True), note
    check = ("guard", "validate", token.strip(), "--resource", "SAP_API", "--agent")
    assert (await door.cli(None, *check, "ann"))[0] == 0
    assert (await door.cli(None, *check, "ben"))[0] == 1
    assert "SAP_API" in (await door.cli(None, "guard", "grants"))[1]
    assert (await door.cli(None, "guard", "revoke", token.strip()))[0] == 0
    assert (await door.cli(None, *check, "ann"))[0] == 1
    assert (await door.cli(None, *ask, "EXTERNAL_SERVICE"))[0] == 1
    assert "DATA_EXPORT" in (await door.cli(None, "guard", "resources"))[1]
    status, view, _ = await door.cli(None, *ask, "DATA_EXPORT", "--scope", "files", "--json")
    asked = json.loads(view)
    assert (status, asked["status"]) == (7, "pending")
    assert (await door.cli("t-paula", "guard", "allow", asked["id"]))[0] == 2
    assert (await door.cli("t-ann", "guard", "allow", asked["id"], "--yes"))[0] != 0
    assert (await door.cli("t-paula", "guard", "allow", asked["id"], "--yes", "--reason", "ok"))[0] == 0
    status, token, _ = await door.cli(None, *ask, "DATA_EXPORT", "--id", asked["id"])
    assert (status, token.count(".")) == (0, 2)


async def test_the_command_line_says_what_is_wrong(door: Door) -> None:
    """One line, and a status that scripts know."""
    server = ("guard", "connect", "--server")
    for token, argv, status, words in (
        ("nobody", (*server, door.url), 77, "not known"),
        (None, (*server, door.url), 77, "--token-file"),
        ("t-ann", (*server, "fleet.example"), 2, "http"),
        ("t-ann", (*server, "http://127.0.0.1:1"), 69, "127.0.0.1:1"),
    ):
        found = await door.cli(token, *argv)
        assert (found[0], words in found[2]) == (status, True), found
    assert not (door.folder / "state" / "guard.json").exists()
    wrong = await door.cli(
        "t-ann", "guard", "request-permission", "--agent", "ann", "--resource", "SAP", "--justification", BUZZWORDS,
        MCPFLEET_URL=door.url,
    )  # fmt: skip
    assert (wrong[0], "did you mean 'SAP_API'" in wrong[2]) == (2, True), wrong


async def test_a_refusal_is_told_to_who_keeps_the_audit(door: Door) -> None:
    """With its tool and its caller; what was merely written wrongly is no refusal."""
    book = MemoryBook()
    door.front.on_refused(Refusing(memory_audit(book), "guard").note)
    async with door.client("t-ann") as client:
        assert (
            await client.call_tool("answer_request", {"id": "r1", "verdict": "allow", "terms_sha256": "x"})
        ).is_error
        assert (await client.call_tool("request_permission", asks(kind="SAP"))).is_error
    assert [(row.action, row.actor, row.decision) for row in book.rows] == [("answer_request", "ann", "refused")]

"""A grant where it is used: a sealed delivery, a real executor, a real MCP server, and a node that asks nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcp_types as types
import orjson
import pytest

from orchestrator.testing.guard import AGENT, Rig, rig_of
from tasks.errors import SettingsError
from tasks.grant import META_KEY
from tasks.outcome import Failure, Outcome
from worker.testing.executor_bench import WAIT_S, Bench
from worker.testing.sap_server import CLOSES, OPEN, POLICIES, READS, WRITES, Books, sap_server
from worker.upstreams.errors import UpstreamError
from worker.upstreams.servers_file import ServersFile, parse_servers
from worker.upstreams.upstreams import Upstreams
from worker.work import Stop


@dataclass
class Node:
    """A node with one server, and the guardian whose news it is told."""

    bench: Bench
    upstreams: Upstreams
    rig: Rig
    seen: list[dict[str, Any]]
    books: Books
    count: int = 0

    def hear(self) -> None:
        """The reply to a renewal."""
        self.upstreams.grants.learn(self.rig.guardian.news(self.upstreams.grants.version))

    async def call(self, tool: str, token: object = None, caller: str = "ann", tenant: str = "default") -> Outcome:
        """By a delivery."""
        self.count += 1
        meta = None if token is None else orjson.dumps({"_meta": {META_KEY: token, "kept": 1}}).decode()
        name = f"c{self.count}"
        self.bench.deliver(name, tool, caller=caller, tenant=tenant, meta_json=meta, timeout_s=600.0)
        return (await self.bench.ended(name)).outcome

    async def code(self, *args: Any, **named: Any) -> str:
        """Of the error with which it ended; empty where it ended well."""
        outcome = await self.call(*args, **named)
        return "" if outcome.error is None else outcome.error.code


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """It knows the keys there are."""
    seen: list[dict[str, Any]] = []
    books = Books()
    bench = Bench(tmp_path, slots=3)
    upstreams = Upstreams(
        ServersFile(policies=POLICIES),
        clock=bench.clock,
        draw=lambda: 0.5,
        client_info=types.Implementation(name="node", version="1"),
        with_probe=False,
    )
    upstreams.add_server("sap", sap_server(seen, books))
    await upstreams.start()
    object.__setattr__(bench.executor._runner, "upstreams", upstreams)
    found = Node(bench, upstreams, rig_of(bench.clock), seen, books)
    await found.rig.book.key()
    found.rig.book._tell()
    found.hear()
    yield found
    bench.executor.stop_all(Stop.DRAIN)
    await upstreams.close()
    await bench.journal.close()


async def test_a_grant_opens_its_tool_and_the_token_stays_here(node: Node) -> None:
    """The tool's server is told what was granted; it cannot use the token elsewhere."""
    token, grant_id = await node.rig.granted()
    node.hear()
    outcome = await node.call(READS, token)
    assert outcome.ending == "succeeded", outcome
    told = node.seen[-1]
    assert (told[META_KEY]["id"], told[META_KEY]["restrictions"]) == (grant_id, {"max_rows": 1000, "audit": True})
    assert told["kept"] == 1
    assert token not in json.dumps(node.seen)


async def test_without_a_grant_the_tool_is_not_started(node: Node) -> None:
    """And what needs none is as before, but for the token, which it does not see."""
    token, _ = await node.rig.granted()
    node.hear()
    assert await node.code(READS) == "grant_required"
    assert await node.code(READS, {"valid": True}) == "grant_required"
    assert await node.code(READS, "granted") == "grant_invalid"
    assert node.seen == []
    assert await node.code(OPEN, token) == ""
    assert token not in json.dumps(node.seen)
    assert META_KEY not in node.seen[-1]


async def test_a_grant_is_good_for_whom_and_what_it_was_given(node: Node) -> None:
    """Shown by another agent, in another tenant, for a wider scope, for another resource; by nobody."""
    token, _ = await node.rig.granted()
    node.hear()
    for tool, caller, tenant in (
        (READS, "ben", "default"),
        (READS, "ann", "other"),
        (WRITES, "ann", "default"),
        ("sap.export", "ann", "default"),
    ):
        assert await node.code(tool, token, caller, tenant) == "grant_invalid", (tool, caller, tenant)
    assert await node.code(READS, token, "") == "grant_required"
    assert node.seen == []


async def test_time_and_revocation_are_kept_without_asking(node: Node) -> None:
    """A revoked grant fails once the node has heard, and stays so; an expired one fails by the node's own clock."""
    token, grant_id = await node.rig.granted()
    other, _ = await node.rig.granted()
    node.hear()
    assert await node.code(READS, token) == ""
    await node.rig.guardian.revoke(AGENT, grant_id=grant_id)
    node.hear()
    assert [await node.code(READS, token), await node.code(READS, token)] == ["grant_invalid"] * 2
    assert await node.code(READS, other) == ""
    node.bench.clock.advance(600)
    node.bench.grant()
    assert await node.code(READS, other) == "grant_invalid"


async def test_what_runs_under_a_grant_is_stopped_when_it_is_revoked(node: Node) -> None:
    """With the next reply to a renewal: its tool is told to stop, nothing is repeated, and its neighbour runs on."""
    token, grant_id = await node.rig.granted()
    other, _ = await node.rig.granted()
    node.hear()
    stopped, beside = (asyncio.create_task(node.call(CLOSES, one)) for one in (token, other))
    for _ in range(2):
        await asyncio.wait_for(node.books.opened.acquire(), WAIT_S)
    await node.rig.guardian.revoke(AGENT, grant_id=grant_id)
    node.hear()
    error = (await asyncio.wait_for(stopped, WAIT_S)).error
    assert error is not None
    assert (error.code, error.failure) == ("grant_revoked", Failure.PERMANENT)
    assert grant_id in error.message
    assert node.seen.count({"stopped": "close_books"}) == 1
    assert not beside.done()
    node.books.closed.set()
    assert (await asyncio.wait_for(beside, WAIT_S)).ending == "succeeded"


async def test_what_runs_when_its_grant_expires_may_finish(node: Node) -> None:
    """Nothing more begins under it; revoked after that, by its id, it stops what runs all the same."""
    tokens = [await node.rig.granted() for _ in range(2)]
    node.hear()
    calls = [asyncio.create_task(node.call(CLOSES, token)) for token, _ in tokens]
    for _ in calls:
        await asyncio.wait_for(node.books.opened.acquire(), WAIT_S)
    node.bench.clock.advance(2000)
    node.bench.grant()
    node.hear()
    assert await node.code(CLOSES, tokens[0][0]) == "grant_invalid"
    await node.rig.guardian.revoke(AGENT, grant_id=tokens[1][1])
    node.hear()
    error = (await asyncio.wait_for(calls[1], WAIT_S)).error
    assert error is not None
    assert error.code == "grant_revoked"
    assert not calls[0].done()
    node.books.closed.set()
    assert (await asyncio.wait_for(calls[0], WAIT_S)).ending == "succeeded"


async def test_a_call_that_is_cancelled_as_its_grant_is_revoked_is_a_cancelled_one(node: Node) -> None:
    """Whoever else stops it is obeyed: the revocation takes no cancellation for its own."""
    token, grant_id = await node.rig.granted()
    node.hear()
    call = asyncio.create_task(node.call(CLOSES, token))
    await asyncio.wait_for(node.books.opened.acquire(), WAIT_S)
    await node.rig.guardian.revoke(AGENT, grant_id=grant_id)
    node.hear()
    node.bench.executor.cancel(("c1", 1))
    assert (await asyncio.wait_for(call, WAIT_S)).ending == "cancelled"


async def test_a_node_that_was_told_nothing_starts_nothing(node: Node) -> None:
    """It waits for the next reply to a renewal, at no cost in tries."""
    token, _ = await node.rig.granted()
    node.upstreams.grants.version = ""
    outcome = await node.call(READS, token)
    assert outcome.error is not None
    assert (outcome.error.code, str(outcome.error.failure)) == ("grants_unknown", "wait_until")


async def test_read_only_is_kept_by_the_node(node: Node) -> None:
    """Such a grant opens no tool that its server does not declare read-only."""
    kind = node.rig.guardian.types["SAP_API"]
    strict = kind.model_copy(update={"restrictions": kind.restrictions.model_copy(update={"read_only": True})})
    node.rig.guardian.types = {"SAP_API": strict}
    token, _ = await node.rig.granted(scope=("orders:read", "orders:write"))
    node.hear()
    assert (await node.code(READS, token), await node.code(WRITES, token)) == ("", "grant_invalid")


async def test_no_way_past_the_fleet_leads_to_such_a_tool(node: Node) -> None:
    """The node's own MCP server, and what it lends to runs, call without a caller."""
    token, _ = await node.rig.granted()
    node.hear()
    with pytest.raises(UpstreamError) as refused:
        await node.upstreams.call(
            READS,
            {},
            timeout_s=5.0,
            meta={"_meta": {META_KEY: token}},
            invocation="direct",
            trace=None,
            on_progress=lambda *_: None,
        )
    assert refused.value.info.code == "grant_required"


def test_the_servers_file_declares_it() -> None:
    """A type that cannot be one is refused where it stands."""
    form: dict[str, Any] = {"mcpServers": {"sap": {"command": "true"}}}
    good = {"tools": {READS: {"grant": "SAP_API", "grant_scope": ["orders:read"]}}}
    read = parse_servers(json.dumps(form | {"mcpfleet": good}), source="here", environ={})
    assert read.policy_of(READS).grant == "SAP_API"
    for wrong in ({"grant": "sap"}, {"grant": "*"}, {"grants": "SAP_API"}):
        with pytest.raises(SettingsError):
            parse_servers(json.dumps(form | {"mcpfleet": {"tools": {READS: wrong}}}), source="here", environ={})

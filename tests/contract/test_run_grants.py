"""A run of an agent and AuthGuardian: asked through its node, granted to whoever called, used without a token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import mcp_types as types
import pytest
from mcp.client import Client
from starlette.applications import Starlette
from starlette.routing import Route

from orchestrator.api.auditing import Auditor
from orchestrator.api.door import Door as ApiDoor
from orchestrator.api.ports import NoMeter
from orchestrator.api.run_grants import RunGrantDoor
from orchestrator.api.settings import ApiSettings
from orchestrator.guarding import AuditedGrants, RunGuard
from orchestrator.identity.doors import Authenticators
from orchestrator.identity.tokens import Tokens, static
from orchestrator.ledger.audit_values import AuditFilter
from orchestrator.ledger.grant_values import terms_digest
from orchestrator.testing.guard import BUZZWORDS, PERSON, TablePolicy
from orchestrator.testing.protocol import Story
from tasks.envelope import Delivery
from tasks.errors import NotAllowed
from tasks.grant import META_KEY
from tasks.node import Ref, RunGrantReply, RunGrantRequest
from tasks.testing.clock import FakeClock
from worker.door import Door
from worker.grants import AUTHGUARDIAN, Caller, GuardAsk
from worker.sidecars.guard_line import ASK, Borrower
from worker.sidecars.lent import lender
from worker.testing.sap_server import POLICIES, sap_server
from worker.upstreams.servers_file import ServersFile
from worker.upstreams.upstreams import Upstreams


@dataclass
class Bench:
    """A run on a node of a real orchestrator core, and the servers that it borrows."""

    story: Story
    upstreams: Upstreams
    delivery: Delivery
    incarnation: str
    node_token: str
    seen: list[dict[str, Any]]

    def borrower(self, invocation: str | None = None) -> Borrower:
        """As the node makes it of a delivery."""
        said = self.delivery
        run = Ref(invocation=invocation or said.invocation, fence=said.fence)
        return Borrower("shop", run, Caller(said.caller, said.tenant))

    def hear(self) -> None:
        """The reply to a renewal."""
        self.upstreams.grants.learn(self.story.core.guardian.news(self.upstreams.grants.version))

    async def call(self, borrower: Borrower, server: str, tool: str, **arguments: Any) -> types.CallToolResult:
        """As the agent's runtime does."""
        async with Client(lender(self.upstreams, "1")(server, borrower)) as client:
            return await client.call_tool(tool, arguments, meta={META_KEY: "mine"})  # type: ignore[arg-type]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """One run is out."""
    clock, seen = FakeClock(), list[dict[str, Any]]()
    story = await Story.begin(tmp_path, clock)
    node = await story.join("a1")
    invocation = await story.accept()
    [delivery] = await story.release()
    assert delivery.invocation == invocation.id
    story.core.guardian.policy = TablePolicy(allowed=frozenset({(delivery.caller, "SAP_API")}))
    upstreams = Upstreams(
        ServersFile(policies=POLICIES),
        clock=clock,
        draw=lambda: 0.5,
        client_info=types.Implementation(name="node", version="1"),
        with_probe=False,
    )
    upstreams.add_server("sap", sap_server(seen))
    await upstreams.start()

    async def ask(said: GuardAsk) -> RunGrantReply:
        return await RunGuard(story.core).ask("a1", RunGrantRequest(incarnation=node.incarnation, **asdict(said)))

    upstreams.ask_guard = ask
    yield Bench(story, upstreams, delivery, node.incarnation, node.reply.node_token, seen)
    await upstreams.close()
    await story.end()


def _text(result: types.CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, types.TextContent))


async def test_a_run_is_granted_what_its_caller_may_have(bench: Bench) -> None:
    """It asks, calls, and never sees a token; the tool's server hears on whose behalf."""
    run = bench.borrower()
    refused = await bench.call(run, "sap", "read_orders")
    assert (refused.is_error, "needs a grant of SAP_API" in _text(refused)) == (True, True)
    answer = await bench.call(run, AUTHGUARDIAN, ASK, resource_type="SAP_API", justification=BUZZWORDS)
    assert (answer.is_error, _text(answer)) == (False, "granted: orders:read")
    bench.hear()
    done = await bench.call(run, "sap", "read_orders")
    assert not done.is_error, _text(done)
    assert bench.seen[-1][META_KEY]["agent"] == bench.delivery.caller
    [row] = bench.story.core.guardian.listing(PERSON)
    assert (row.agent, row.parent, row.credential) == (
        bench.delivery.caller,
        bench.delivery.invocation,
        f"run:{bench.delivery.invocation}",
    )
    other = bench.borrower()
    assert (await bench.call(other, "sap", "read_orders")).is_error  # what one run was granted, no other uses


async def test_a_run_waits_for_a_person_by_asking_again(bench: Bench) -> None:
    """The same words are the same request; then the grant is there."""
    run, guardian = bench.borrower(), bench.story.core.guardian
    ask = {"resource_type": "DATA_EXPORT", "justification": BUZZWORDS, "scope": ["tables"]}
    first = await bench.call(run, AUTHGUARDIAN, ASK, **ask)
    again = await bench.call(run, AUTHGUARDIAN, ASK, **ask)
    assert (_text(first), _text(again)) == ("pending: tables", "pending: tables")
    [row] = guardian.listing(PERSON)
    await guardian.answer(row.id, is_allowed=True, terms_sha256=terms_digest(row), reason="", by=PERSON)
    assert _text(await bench.call(run, AUTHGUARDIAN, ASK, **ask)) == "granted: tables"
    assert list(run.tokens) == ["DATA_EXPORT"]


async def test_a_run_names_neither_itself_nor_another(bench: Bench) -> None:
    """Who called is the ledger's; a node asks for what it runs itself, and an agent says no id at all."""
    stranger = bench.borrower("00000000-0000-7000-8000-000000000000")
    answer = await bench.call(stranger, AUTHGUARDIAN, ASK, resource_type="SAP_API", justification=BUZZWORDS)
    assert (answer.is_error, "no run" in _text(answer)) == (True, True)
    named = await bench.call(
        bench.borrower(), AUTHGUARDIAN, ASK, resource_type="SAP_API", justification=BUZZWORDS, agent_id="root"
    )
    assert (named.is_error, "agent_id" in _text(named)) == (True, True)
    guard = RunGuard(bench.story.core)
    for node, incarnation in (("b1", bench.incarnation), ("a1", "older")):
        said = RunGrantRequest(
            incarnation=incarnation,
            run=bench.borrower().run,
            resource_type="SAP_API",
            justification=BUZZWORDS,
        )
        with pytest.raises(Exception, match="no run"):
            await guard.ask(node, said)
    assert bench.story.core.guardian.listing(PERSON) == []


async def test_a_runs_powers_are_an_agents(bench: Bench) -> None:
    """Also where an operator called it: an export still waits for a person who is not he."""
    run = bench.borrower()
    await bench.call(run, AUTHGUARDIAN, ASK, resource_type="DATA_EXPORT", justification=BUZZWORDS, scope=["files"])
    [row] = bench.story.core.guardian.listing(PERSON)
    assert (row.state, row.trust) == ("pending", 50)


async def test_a_node_asks_with_its_own_token_only(bench: Bench) -> None:
    """Over HTTP: the path is the node's, and no caller's token opens it."""
    core = bench.story.core
    own = Tokens(static("operator-token", "join-token"), node_of=core.desk.node_of, enrolled=core.enroller.principal)
    routes = [
        Route(
            one.path,
            ApiDoor({one.method: one}, Authenticators([own]), ApiSettings(), Auditor(core.audit), NoMeter()),
            methods=[one.method],
        )
        for one in RunGrantDoor(RunGuard(core)).operations()
    ]
    door = Door("http://127.0.0.1:8700", httpx.ASGITransport(Starlette(routes=routes)))
    door._node, door.token = "a1", bench.node_token
    said = RunGrantRequest(
        incarnation=bench.incarnation, run=bench.borrower().run, resource_type="SAP_API", justification=BUZZWORDS
    )
    answer = await door.ask_guard(said)
    assert (answer.status, answer.scope, answer.token is not None) == ("granted", ("orders:read",), True)
    for token in ("operator-token", "join-token"):
        door.token = token
        with pytest.raises(NotAllowed):
            await door.ask_guard(said)
    door._node, door.token = "b1", bench.node_token
    with pytest.raises(NotAllowed):
        await door.ask_guard(said)
    await door.close()


async def test_what_a_run_was_granted_is_in_the_audit_log(bench: Bench) -> None:
    """Who, what, for which run, and the justification as it was said; never the token."""
    core = bench.story.core
    core.guardian.audit = AuditedGrants(core.audit)
    run = bench.borrower()
    await bench.call(run, AUTHGUARDIAN, ASK, resource_type="SAP_API", justification=BUZZWORDS)
    await bench.call(run, AUTHGUARDIAN, ASK, resource_type="EXTERNAL_SERVICE", justification=BUZZWORDS)
    rows, _ = await core.audit.listing(AuditFilter(), None, 100)
    told = {row.action: row for row in rows if row.action.startswith("grant.")}
    assert {act: (str(row.decision), row.target) for act, row in told.items()} == {
        "grant.granted": ("allowed", "SAP_API"),
        "grant.denied": ("refused", "EXTERNAL_SERVICE"),
    }
    assert BUZZWORDS in repr(told)
    assert bench.delivery.invocation in repr(told)
    assert run.tokens["SAP_API"] not in repr(rows)

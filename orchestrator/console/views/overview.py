"""The first page: is the fleet well, what needs somebody, what waits and why, what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cli.durations import took
from orchestrator.console.page import Page, Visit
from orchestrator.console.words import BAD, WARN, plural
from tasks.approval import ApprovalState
from tasks.approval_wire import ApprovalView
from tasks.invocation import State
from tasks.node import NodeState
from tasks.scale_wire import ScaleView
from tasks.scopes import Scope
from tasks.wire import BacklogView, DeadLetterView, ExplainView, InvocationView, NodeView, PoolView
from tasks.wire import Page as Listing
from tasks.wire_costs import CostsView

DAY_S, HOUR_S = 86_400.0, 3600.0
LONG_WAIT_S = 60.0
"""A call that waits longer is worth a look, whatever its lane."""
WAITING_SHOWN, FAILED_SHOWN = 5, 8
COUNTED = 100
"""More than these are `100+`: the page must cost the same whatever the ledger holds."""
ENDED_BADLY = (State.FAILED, State.LOST, State.EXPIRED)


@dataclass(frozen=True, slots=True)
class Matter:
    """Something that needs somebody: how badly, a sentence, and where to go."""

    tone: str
    sentence: str
    href: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What this person may see of the fleet; None: nothing of that kind."""

    nodes: Sequence[NodeView] | None = None
    pools: Sequence[PoolView] = ()
    backlog: BacklogView | None = None
    scale: ScaleView | None = None
    costs: CostsView | None = None
    dead: Listing[DeadLetterView] | None = None
    approvals: Listing[ApprovalView] | None = None
    failed: Sequence[InvocationView] = ()
    waiting: Sequence[tuple[InvocationView, ExplainView]] = field(default_factory=tuple)


async def load(visit: Visit) -> Mapping[str, Any]:
    """All of it."""
    seen = await _seen(visit)
    matters = sorted(_matters(seen, visit.now_s), key=lambda one: one.tone != BAD)
    return {
        "seen": seen,
        "matters": matters,
        "verdict": _verdict(seen, matters),
        "dead": None if seen.dead is None else _unanswered(seen.dead),
    }


async def _seen(visit: Visit) -> Seen:
    api, now_s = visit.api, visit.now_s
    nodes = await api.get_or_none("/v1/nodes", Listing[NodeView])
    pools = await api.get_or_none("/v1/pools", Listing[PoolView])
    calls = Listing[InvocationView]
    failed = await api.get_or_none(
        "/v1/invocations", calls, {"state": ENDED_BADLY, "since": now_s - HOUR_S, "limit": FAILED_SHOWN}
    )
    waiting = await api.get_or_none("/v1/invocations", calls, {"state": State.WAITING, "limit": WAITING_SHOWN})
    return Seen(
        nodes=None if nodes is None else nodes.items,
        pools=[] if pools is None else pools.items,
        backlog=await api.get_or_none("/v1/backlog", BacklogView),
        scale=await api.get_or_none("/v1/scale", ScaleView),
        costs=await api.get_or_none("/v1/costs", CostsView, {"since": now_s - DAY_S, "limit": 1}),
        dead=await api.get_or_none("/v1/dead-letters", Listing[DeadLetterView], {"limit": COUNTED}),
        approvals=await api.get_or_none(
            "/v1/approvals", Listing[ApprovalView], {"state": ApprovalState.WAITING, "limit": COUNTED}
        ),
        failed=[] if failed is None else failed.items,
        waiting=[
            (one, await api.get(f"/v1/invocations/{one.id}/why", ExplainView))
            for one in ([] if waiting is None else waiting.items)
        ],
    )


def _matters(seen: Seen, now_s: float) -> Iterator[Matter]:
    yield from _of_nodes(seen.nodes or ())
    for pool in seen.pools:
        if pool.is_paused:
            yield Matter(WARN, f"Pool {pool.name} is paused; {plural(pool.waiting, 'call')} wait for it.", "/queues")
        elif pool.waiting and not pool.nodes:
            yield Matter(
                BAD, f"Pool {pool.name} has no node, and {plural(pool.waiting, 'call')} wait for it.", "/fleet"
            )
    if seen.backlog is not None:
        yield from _of_backlog(seen.backlog)
    yield from _of_people(seen, now_s)
    if seen.scale is not None:
        for alert in seen.scale.alerts:
            yield Matter(BAD, f"Autoscaler: {alert}", "/autoscaler")
        for sized in seen.scale.pools:
            for alert in sized.decision.alerts if sized.decision else ():
                yield Matter(WARN, f"Autoscaler, pool {sized.pool}: {alert}", "/autoscaler")


def _of_people(seen: Seen, now_s: float) -> Iterator[Matter]:
    """What goes on when somebody has decided."""
    if seen.approvals is not None and seen.approvals.items:
        soonest_s = min(one.expires_at for one in seen.approvals.items) - now_s
        asks = plural(len(seen.approvals.items), "run asks a person", "runs ask a person")
        yield Matter(WARN, f"{asks}; the first answer is due within {took(soonest_s)}.", "/approvals")
    if seen.dead is not None and (count := _unanswered(seen.dead)) != "0":
        yield Matter(
            WARN,
            f"{count} {'dead letter waits' if count == '1' else 'dead letters wait'} for a decision.",
            "/dead-letters",
        )


def _of_nodes(nodes: Sequence[NodeView]) -> Iterator[Matter]:
    for node in nodes:
        if node.state is NodeState.LOST:
            yield Matter(BAD, f"Node {node.name} is lost: it renews its lease no more.", "/fleet")
        elif node.state is NodeState.CORDONED:
            yield Matter(WARN, f"Node {node.name} is cordoned: it gets no new calls.", "/fleet")
        for server, why in {**node.circuits, **node.unhealthy}.items():
            name = f"server {server} on {node.name}" if server else f"node {node.name}"
            yield Matter(WARN, f"Nothing goes to {name} now: {why}", "/fleet")


def _of_backlog(backlog: BacklogView) -> Iterator[Matter]:
    if backlog.waiting and backlog.oldest_wait_s > LONG_WAIT_S:
        oldest = took(backlog.oldest_wait_s)
        yield Matter(WARN, f"The oldest waiting call waits for {oldest}.", "/calls?state=waiting")
    for project in backlog.paused_projects:
        yield Matter(WARN, f"Project {project} is paused.", "/queues")


def _verdict(seen: Seen, matters: Sequence[Matter]) -> str:
    if any(one.tone == BAD for one in matters):
        return "Something is wrong."
    if matters:
        return "The fleet works; something wants a look."
    if seen.nodes is not None and not seen.nodes:
        return "No node has joined yet."
    return "All is well. Nothing needs you now." if seen.nodes is not None else "Your calls."


def _unanswered(found: Listing[DeadLetterView]) -> str:
    """How many nobody replayed, among the newest."""
    count = sum(letter.replayed_as is None for letter in found.items)
    return f"{count}+" if found.next else str(count)


PAGE = Page("", "Overview", "overview.html", load, scope=Scope.TOOLS_READ, group="Now")

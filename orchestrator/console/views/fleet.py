"""The fleet map: pools, their nodes, and what an operator may do with a node."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from orchestrator.console.page import Act, Done, Page, Question, Visit
from orchestrator.console.words import plural
from tasks.node import NodeState
from tasks.scopes import Scope
from tasks.wire import NodeView, PoolView
from tasks.wire import Page as Listing

WORDS: Mapping[NodeState, tuple[str, str, str]] = {
    NodeState.ACTIVE: ("Uncordon", "It takes calls again.", "takes calls again"),
    NodeState.CORDONED: (
        "Cordon",
        "It gets no new calls. What it holds it finishes. It stays a member until you uncordon or drain it.",
        "gets no new calls",
    ),
    NodeState.DRAINING: (
        "Drain",
        "It hands back what it has not started, finishes what runs, and leaves the fleet.",
        "hands back what it has not started and leaves when it is done",
    ),
}
"""The button, what follows, and what is said when it is done."""


async def load(visit: Visit) -> Mapping[str, Any]:
    """Pools and nodes."""
    pools = (await visit.api.get("/v1/pools", Listing[PoolView])).items
    nodes = (await visit.api.get("/v1/nodes", Listing[NodeView])).items
    away = sum(node.state is not NodeState.ACTIVE for node in nodes)
    rest = f", {away} of them not active" if away else ""
    return {
        "pools": pools,
        "nodes": nodes,
        "summary": f"{plural(len(nodes), 'node')} in {plural(len(pools), 'pool')}{rest}.",
        "may_steer": visit.may(Scope.FLEET_WRITE),
    }


async def ask(wanted: NodeState, visit: Visit) -> Question:
    """Before a node's state is set."""
    name = visit.path["name"]
    nodes = (await visit.api.get("/v1/nodes", Listing[NodeView])).items
    node = next((one for one in nodes if one.name == name), None)
    verb, follows, _ = WORDS[wanted]
    running = 0 if node is None else sum(node.running.values())
    holds = [] if node is None else [f"Now it is {node.state} and runs {plural(running, 'call')}."]
    return Question(f"{verb} node {name}?", [*holds, follows], verb, "/fleet", is_grave=wanted is NodeState.DRAINING)


async def do(wanted: NodeState, visit: Visit) -> Done:
    """Set it."""
    name = visit.path["name"]
    view = await visit.api.post(f"/v1/nodes/{name}/state", NodeView, {"state": wanted})
    return Done(f"{view.name} is {view.state}: it {WORDS[wanted][2]}.", "/fleet")


ACTS = tuple(
    Act(f"/fleet/{{name}}/{verb}", Scope.FLEET_WRITE, partial(ask, state), partial(do, state))
    for verb, state in (("cordon", NodeState.CORDONED), ("uncordon", NodeState.ACTIVE), ("drain", NodeState.DRAINING))
)
PAGE = Page("/fleet", "Fleet", "fleet.html", load, scope=Scope.FLEET_READ, group="Now", acts=ACTS)

"""Circuit breakers, by node and server: which let nothing through, since when, why, and when they try again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.console.page import Page, Visit
from orchestrator.console.words import plural
from tasks.scopes import Scope
from tasks.wire import NodeView
from tasks.wire import Page as Listing
from tasks.wire_trouble import CircuitView

ORDER = ("open", "half-open", "closed")


async def load(visit: Visit) -> Mapping[str, Any]:
    """What something failed behind, the worst first; nodes of which nothing is to be said are counted."""
    circuits = (await visit.api.get("/v1/circuits", Listing[CircuitView])).items
    nodes = (await visit.api.get("/v1/nodes", Listing[NodeView])).items
    troubled = {one.node for one in circuits}
    return {
        "circuits": sorted(circuits, key=lambda one: (ORDER.index(one.state), one.node, one.server)),
        "unhealthy": [(node.name, server, text) for node in nodes for server, text in sorted(node.unhealthy.items())],
        "calm": sum(node.name not in troubled for node in nodes),
        "nodes": len(nodes),
        "summary": _summary(circuits),
    }


def _summary(circuits: list[CircuitView]) -> str:
    if not circuits:
        return ""
    said = [(state, sum(one.state == state for one in circuits)) for state in ORDER]
    words = {"open": "open", "half-open": "half-open", "closed": "closed with failures of late"}
    return (
        f"{plural(len(circuits), 'circuit')}: "
        + ", ".join(f"{count} {words[state]}" for state, count in said if count)
        + "."
    )


PAGE = Page("/circuits", "Circuit breakers", "circuits.html", load, scope=Scope.FLEET_READ, group="Machines")

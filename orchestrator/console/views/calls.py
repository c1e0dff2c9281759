"""Calls: the list with its filters, which its address carries, and a page at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from orchestrator.console.page import Page, Visit
from tasks.invocation import TERMINAL, State
from tasks.scopes import Scope
from tasks.wire import InvocationView, NodeView, ToolView
from tasks.wire import Page as Listing

SHOWN = 50
SUGGESTED = 200
"""Names of tools and nodes that a field suggests; others can be written."""
OPEN = [state for state in State if state not in TERMINAL]
SETS: Mapping[str, tuple[str, list[State]]] = {
    "open": ("not ended", OPEN),
    "at-nodes": ("at nodes", [State.RELEASED, State.RUNNING, State.UNREACHABLE]),
    "ended": ("ended", sorted(TERMINAL)),
    "bad": ("ended badly", [State.FAILED, State.LOST, State.EXPIRED]),
}
"""Words for several states."""
AGES = (("900", "15 minutes"), ("3600", "hour"), ("86400", "day"), ("604800", "week"))
LASTED = (("1", "1 s"), ("10", "10 s"), ("60", "1 minute"), ("600", "10 minutes"), ("3600", "1 hour"))
WORDS = ("tool", "project", "node", "principal")


async def load(visit: Visit) -> Mapping[str, Any]:
    """One page of calls."""
    chosen = {name: visit.said(name) for name in (*WORDS, "age", "took")}
    state = visit.said("state")
    age_s = _seconds(chosen["age"])
    query = {
        **{name: chosen[name] for name in WORDS},
        "state": SETS[state][1] if state in SETS else visit.all_said("state"),
        "since": None if age_s is None else visit.now_s - age_s,
        "took": _seconds(chosen["took"]),
        "cursor": visit.said("cursor"),
        "limit": SHOWN,
    }
    found = await visit.api.get("/v1/invocations", Listing[InvocationView], query)
    said = {name: value for name, value in {**chosen, "state": state}.items() if value}
    return {
        "calls": found.items,
        "chosen": {**chosen, "state": state},
        "is_filtered": bool(said),
        "older": _address({**said, "cursor": found.next}) if found.next else "",
        "newest": _address(said) if visit.said("cursor") else "",
        "sets": SETS,
        "states": list(State),
        "ages": AGES,
        "lasted": LASTED,
        **await _suggestions(visit),
    }


async def _suggestions(visit: Visit) -> Mapping[str, Any]:
    tools = await visit.api.get_or_none("/v1/tools", Listing[ToolView])
    nodes = await visit.api.get_or_none("/v1/nodes", Listing[NodeView])
    return {
        "tools": [tool.name for tool in tools.items[:SUGGESTED]] if tools else [],
        "nodes": [node.name for node in nodes.items[:SUGGESTED]] if nodes else [],
    }


def _seconds(said: str) -> float | None:
    return float(said) if said.isascii() and said.isdecimal() else None


def _address(said: Mapping[str, str | None]) -> str:
    return "/console/calls" + (f"?{urlencode(said)}" if said else "")


PAGE = Page("/calls", "Calls", "calls.html", load, scope=Scope.INVOCATIONS_READ, group="Now")

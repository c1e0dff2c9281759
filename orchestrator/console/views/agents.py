"""Runs of agents: which go on, what they cost so far, what they say just now, and ending one; their credentials.

A run is a call in the lane `agents`. What it says is told as it comes and never kept, so its page listens to the
call's own stream of events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.cli.shortid import short
from orchestrator.console.inside import Query
from orchestrator.console.links import link, pages
from orchestrator.console.page import Act, Done, Page, Question, Visit
from orchestrator.console.words import plural
from tasks.invocation import OUTSTANDING, TERMINAL, Lane, State
from tasks.scopes import Scope
from tasks.wire import InvocationView, NodeView, SpendView
from tasks.wire import Page as Listing

HERE = "/agents"
GOING = sorted((*OUTSTANDING, State.WAITING))
SHOWN = 50
"""Runs that go on at once: few, for each has a slot of its own."""
COSTED = 20
"""Of which so many are asked what they cost so far; each is a look into the books."""
ENDED = 25


@dataclass(frozen=True, slots=True)
class Money:
    """What a run spent on models, as far as its node has told."""

    cost_usd: float | None
    tokens: int
    requests: int
    is_estimated: bool


async def load(visit: Visit) -> Mapping[str, Any]:
    """Runs that go on, then a page of those that ended; and credentials that have a word said of them."""
    lane = {"lane": Lane.AGENTS.value}
    cursor = visit.said("cursor")
    going = await visit.api.get("/v1/invocations", Listing[InvocationView], {**lane, "state": GOING, "limit": SHOWN})
    query: Query = {**lane, "state": sorted(TERMINAL), "limit": ENDED, "cursor": cursor}
    ended = await visit.api.get("/v1/invocations", Listing[InvocationView], query)
    nodes = await visit.api.get_or_none("/v1/nodes", Listing[NodeView])
    older, newest = pages(visit, HERE, ended.next, ())
    return {
        "going": going.items,
        "has_more": going.next is not None,
        "money": await _money(visit, going.items[:COSTED]),
        "ended": ended.items,
        "older": older,
        "newest": newest,
        "standing": [] if nodes is None else _standing(nodes.items),
        "has_agents": nodes is None or any(node.slots.get(Lane.AGENTS, 0) for node in nodes.items),
        "may_act": visit.may(Scope.INVOCATIONS_WRITE),
        "summary": _summary(going.items),
    }


async def load_one(visit: Visit) -> Mapping[str, Any]:
    """One run. Its session is known when it has ended; before, it is among what the run says."""
    run = await visit.api.get(f"/v1/invocations/{visit.path['id']}", InvocationView)
    answer = (run.result or {}).get("structuredContent") or {}
    return {
        "run": run,
        "money": _sum(run.spent),
        "spent": run.spent,
        "session": str(answer.get("session_id") or "") if isinstance(answer, dict) else "",
        "is_over": run.state in TERMINAL,
        "may_act": visit.may(Scope.INVOCATIONS_WRITE),
        "may_answer": visit.may(Scope.APPROVALS_READ),
        "took_s": (run.ended_at or visit.now_s) - run.accepted_at,
    }


async def ask_cancel(visit: Visit) -> Question:
    """Before a run is ended."""
    run = await visit.api.get(f"/v1/invocations/{visit.path['id']}", InvocationView)
    where = f"It is {run.state}{f' on {run.node}' if run.node else ''}"
    said = [f"{where}; {run.principal} called it.", "The agent is stopped. What it did stays done, and is paid for."]
    return Question(f"Cancel {run.tool}?", said, "Cancel the run", f"{HERE}/{run.id}", is_grave=True)


async def cancel(visit: Visit) -> Done:
    """End it."""
    run = await visit.api.post(f"/v1/invocations/{visit.path['id']}/cancel", InvocationView)
    word = "is cancelled" if run.state in TERMINAL else "is asked to stop"
    return Done(f"{run.tool} {short(run.id)} {word}.", f"{HERE}/{run.id}")


def _summary(going: Iterable[InvocationView]) -> str:
    states = [run.state for run in going]
    if not states:
        return ""
    running, asking = states.count(State.RUNNING), sum(bool(run.approvals) for run in going)
    people = f"; {plural(asking, 'waits', 'wait')} for a person" if asking else ""
    waiting = plural(len(states) - running, "waits", "wait")
    return f"{plural(running, 'run goes on', 'runs go on')}, {waiting} for a node{people}."


async def _money(visit: Visit, runs: Iterable[InvocationView]) -> Mapping[str, Money]:
    """By run; those that nobody knows any more are left out."""
    wanted = [run for run in runs if run.fence]
    whole = await asyncio.gather(
        *(visit.api.get_or_none(f"/v1/invocations/{run.id}", InvocationView) for run in wanted)
    )
    return {one.id: _sum(one.spent) for one in whole if one is not None}


def _sum(spent: Iterable[SpendView]) -> Money:
    rows = list(spent)
    known = [row.cost_usd for row in rows if row.cost_usd is not None]
    return Money(
        cost_usd=sum(known) if len(known) == len(rows) else None,
        tokens=sum(
            row.input_tokens + row.output_tokens + row.cache_read_tokens + row.cache_write_tokens for row in rows
        ),
        requests=sum(row.requests for row in rows),
        is_estimated=any(row.is_estimated for row in rows),
    )


def _standing(nodes: Iterable[NodeView]) -> list[tuple[str, str, str, str]]:
    """Node, sidecar, tone and what is to be known of it: a credential that is spent until a time, or refused."""
    found = []
    for node in nodes:
        if not node.slots.get(Lane.AGENTS, 0):
            continue
        found += [(node.name, server, "bad", text) for server, text in node.unhealthy.items() if server]
        found += [
            (node.name, server, "warn", text) for server, text in node.notes.items() if server not in node.unhealthy
        ]
    return found


def run_link(run: str) -> str:
    """Its page."""
    return link(f"{HERE}/{run}")


PAGES = (
    Page(HERE, "Agents", "agents.html", load, scope=Scope.INVOCATIONS_READ, group="Work"),
    Page(
        f"{HERE}/{{id}}", "Run", "agent.html", load_one, scope=Scope.INVOCATIONS_READ,
        acts=(Act(f"{HERE}/{{id}}/cancel", Scope.INVOCATIONS_WRITE, ask_cancel, cancel),),
        feed="/v1/invocations/{id}/events", relays=True,
    ),
)  # fmt: skip

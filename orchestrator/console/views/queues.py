"""Queues: what waits in the broker and in the ledger, and what is held up on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from orchestrator.console.page import Act, Done, Page, Question, Visit
from tasks.scopes import Scope
from tasks.wire import BacklogView, PoolView, QueueView
from tasks.wire import Page as Listing

PROJECTS_SHOWN = 20
KINDS = ("queue", "pool", "project")


async def load(visit: Visit) -> Mapping[str, Any]:
    """Queues, pools and the backlog by project."""
    backlog = await visit.api.get("/v1/backlog", BacklogView)
    projects = sorted(backlog.by_project.items(), key=lambda item: -item[1])
    paused = [(name, 0) for name in backlog.paused_projects if name not in backlog.by_project]
    return {
        "backlog": backlog,
        "queues": (await visit.api.get("/v1/queues", Listing[QueueView])).items,
        "pools": (await visit.api.get("/v1/pools", Listing[PoolView])).items,
        "projects": [*projects[:PROJECTS_SHOWN], *paused],
        "may_steer": visit.may(Scope.FLEET_WRITE),
    }


async def ask(verb: str, visit: Visit) -> Question:
    """Before something is paused or goes on."""
    kind, name = visit.path["kind"], visit.path["name"]
    if verb == "resume":
        return Question(
            f"Resume {kind} {name}?", ["What waits for it is released again, in fair order."], "Resume", BACK
        )
    of = {"queue": "to this queue", "pool": "to this pool", "project": "of this project"}.get(kind, "")
    follows = f"Nothing more is released {of}. What is at a node already runs on; calls are accepted and wait."
    return Question(f"Pause {kind} {name}?", [follows], "Pause", BACK)


async def do(verb: str, visit: Visit) -> Done:
    """Pause or resume."""
    kind, name = visit.path["kind"], visit.path["name"]
    await visit.api.send("POST", "/v1/pauses", {"kind": kind, "name": name, "is_paused": verb == "pause"})
    return Done(f"{kind.capitalize()} {name} {'is paused' if verb == 'pause' else 'runs again'}.", BACK)


BACK = "/queues"
ACTS = tuple(
    Act(f"/queues/{{kind}}/{{name}}/{verb}", Scope.FLEET_WRITE, partial(ask, verb), partial(do, verb))
    for verb in ("pause", "resume")
)
PAGE = Page("/queues", "Queues", "queues.html", load, scope=Scope.FLEET_READ, group="Now", acts=ACTS)

"""Service level objectives: what is promised, what was measured, and how much of the error budget is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.console.page import Page, Visit
from orchestrator.console.words import BAD, CALM, GOOD, WARN
from tasks.scopes import Scope
from tasks.wire_objectives import ObjectivesView, ObjectiveView

LOW = 0.25
"""Less of the budget than this is worth a look."""


async def load(visit: Visit) -> Mapping[str, Any]:
    """All of them, as this orchestrator measured them since it began."""
    found = await visit.api.get("/v1/objectives", ObjectivesView)
    missed = [one for one in found.items if one.is_met is False]
    return {
        "found": found,
        "items": [(one, tone(one), left(one)) for one in found.items],
        "summary": f"{len(missed)} of {len(found.items)} missed." if missed else "",
    }


def tone(one: ObjectiveView) -> str:
    """How it stands."""
    if one.budget_left is None:
        return CALM
    if one.is_met is False or one.budget_left <= 0:
        return BAD
    return WARN if one.budget_left < LOW else GOOD


def left(one: ObjectiveView) -> float:
    """Percent of the error budget that is left, for a bar: an overspent one is empty."""
    return round(100 * min(1.0, max(0.0, 1.0 if one.budget_left is None else one.budget_left)), 2)


PAGE = Page("/objectives", "Objectives", "objectives.html", load, scope=Scope.FLEET_READ, group="Records")

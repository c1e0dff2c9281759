"""Every page of the console, in the order of the navigation."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.console.page import Page
from orchestrator.console.views import (
    agents,
    approvals,
    audit,
    autoscaler,
    call,
    calls,
    circuits,
    cost,
    dead_letters,
    fleet,
    objectives,
    overview,
    queues,
)

PAGES: Sequence[Page] = (
    overview.PAGE,
    fleet.PAGE,
    queues.PAGE,
    calls.PAGE,
    call.PAGE,
    *agents.PAGES,
    *approvals.PAGES,
    *dead_letters.PAGES,
    *autoscaler.PAGES,
    circuits.PAGE,
    cost.PAGE,
    objectives.PAGE,
    *audit.PAGES,
)  # fmt: skip

"""Every page of the console, in the order of the navigation."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.console.page import Page
from orchestrator.console.views import call, calls, fleet, overview, queues

PAGES: Sequence[Page] = (
    overview.PAGE,
    fleet.PAGE,
    queues.PAGE,
    calls.PAGE,
    call.PAGE,
)  # fmt: skip

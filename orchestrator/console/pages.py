"""Every page of the console, in the order of the navigation."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.console.page import Page
from orchestrator.console.views import fleet

PAGES: Sequence[Page] = (
    fleet.PAGE,
)  # fmt: skip

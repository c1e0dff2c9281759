"""Nobody is answered by an orchestrator that may have been superseded.

Its successor read everything when it took over. What the old one would still grant or acknowledge,
a lease above all, the successor would not know of.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.api.problems import NotLeading, problem
from orchestrator.api.trace import trace_of

METRICS_PATH = "/metrics"


class LeaderGuard:
    """Wraps the whole application but its metrics."""

    def __init__(self, app: ASGIApp, leads: Callable[[], bool]) -> None:
        self._app, self._leads = app, leads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] == "http" and not self._leads() and scope["path"] != METRICS_PATH:
            await problem(NotLeading(), trace_of(dict(scope["headers"]))).send(receive, send)
            return
        await self._app(scope, receive, send)

"""RED for doors: requests, errors, duration, by operation. Each metric is incremented here and nowhere else.

An operation is a name of the API's table, or a method of MCP; never a path, which callers choose. An error that MCP
says inside a 200 is none here: tools and calls have metrics of their own, and the objective of availability is told of
calls that could not be taken (`orchestrator/refused_calls.py`).
Source: T. Wilkie, the RED method; MCP 2025-11-25, schema, for the methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.clock import Clock
from tasks.labels import OTHER

API, MCP = "api", "mcp"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
METHODS = frozenset({
    "initialize", "ping", "tools/call", "tools/list", "tasks/cancel", "tasks/get", "tasks/list", "tasks/result",
    "tasks/update", "subscriptions/listen", "server/discover", "notifications/cancelled", "notifications/initialized",
})  # fmt: skip
PLACING = frozenset({(API, "call"), (API, "call_many"), (MCP, "tools/call")})
"""Operations that place calls: an answer of 5xx is a call that the fleet failed."""
GONE = 499
SERVER_ERRORS = 500


class _Series(NamedTuple):
    requests: Counter
    seconds: Histogram


class DoorMetrics:
    """Of every door of this process. `refused` is told of calls that a door could not take."""

    def __init__(self, registry: CollectorRegistry, clock: Clock, refused: Callable[[], None]) -> None:
        self._clock, self._refused = clock, refused
        self._requests = Counter(
            "mcpfleet_door_requests_total",
            "Requests answered, by door, operation and class of status (`gone`: the caller was)",
            ["door", "operation", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "mcpfleet_door_seconds",
            "From a request's headers to the end of its answer; waits that callers asked for are in it",
            ["door", "operation"],
            buckets=SECONDS,
            registry=registry,
        )
        self._series: dict[tuple[str, str, int], _Series] = {}

    def begin(self) -> float:
        """A request came; monotonic seconds."""
        return self._clock.mono_s()

    def count(self, door: str, operation: str, status: int, began_s: float, trace_id: str | None) -> None:
        """It was answered. `operation` is one of a bounded set."""
        key = (door, operation, status)
        found = self._series.get(key)
        if found is None:
            word = "gone" if status == GONE else f"{status // 100}xx"
            found = _Series(self._requests.labels(door, operation, word), self._seconds.labels(door, operation))
            self._series[key] = found
        found.requests.inc()
        found.seconds.observe(self._clock.mono_s() - began_s, {"trace_id": trace_id} if trace_id else None)
        if status >= SERVER_ERRORS and (door, operation) in PLACING:
            self._refused()


class ApiMeter:
    """Satisfies the API's Meter."""

    def __init__(self, metrics: DoorMetrics) -> None:
        self._metrics = metrics

    def begin(self) -> float:
        """A request came."""
        return self._metrics.begin()

    def answered(self, operation: str, status: int, began_s: float, trace_id: str) -> None:
        """It was answered."""
        self._metrics.count(API, operation, status, began_s, trace_id)


class MeasuredMcp:
    """Wraps the MCP door."""

    def __init__(self, app: ASGIApp, metrics: DoorMetrics, method_key: str, trace_key: str) -> None:
        """In a scope, where that is known: the method of MCP that a request is of, the trace id of what it called."""
        self._app, self._metrics, self._method_key, self._trace_key = app, metrics, method_key, trace_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        began_s, status = self._metrics.begin(), GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = SERVER_ERRORS
            raise
        finally:
            method = scope.get(self._method_key)
            operation, trace_id = method if method in METHODS else OTHER, scope.get(self._trace_key)
            self._metrics.count(MCP, operation, status, began_s, trace_id)

"""What others see of a node over HTTP: /metrics, /health, and its MCP server at /mcp.

Owns the node's metrics: each is incremented here and nowhere else. Labels are names of tools and
codes, never arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tasks.invocation import Lane
from tasks.labels import TOOLS_MAX, WORDS_MAX, Bounded
from tasks.outcome import Outcome

Leaks = Callable[[], Mapping[str, Mapping[str, int]]]
"""By sidecar and kind, since the node started."""
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


class Metrics:
    """The node's registry. Is the executor's Meter."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("mcp_requests", "Attempts that ended.", ["tool", "outcome"], registry=self.registry)
        self._errors = Counter("mcp_errors", "Attempts that failed, by code.", ["code"], registry=self.registry)
        self._seconds = Histogram(
            "mcp_request_duration_seconds", "Time in the tool.", ["tool"], buckets=BUCKETS_S, registry=self.registry
        )
        self._refused = Counter(
            "mcpfleet_deliveries_refused", "Deliveries refused, by reason.", ["why"], registry=self.registry
        )
        self._tools, self._codes = Bounded(TOOLS_MAX), Bounded(WORDS_MAX)
        self._ended: dict[tuple[str, str], Counter] = {}
        self._took: dict[str, Histogram] = {}

    def ended(self, tool: str, outcome: Outcome, took_s: float | None, trace_id: str | None) -> None:
        """One attempt ended."""
        tool = self._tools.of(tool)
        key = (tool, outcome.ending)
        counter = self._ended.get(key)
        if counter is None:
            counter = self._ended[key] = self._requests.labels(*key)
        counter.inc()
        if outcome.error is not None:
            self._errors.labels(self._codes.of(outcome.error.code)).inc()
        if took_s is not None:
            self._observe(tool, took_s, trace_id)

    def refused(self, why: str) -> None:
        """One delivery was refused."""
        self._refused.labels(why).inc()

    def watch(self, read: Gauges) -> None:
        """Gauges that are read when scraped."""
        gauge = Gauge("mcp_active_connections", "MCP servers with an open session.", registry=self.registry)
        gauge.set_function(read.connections)
        gauge = Gauge("mcp_worker_health", "1 when this node may start work.", registry=self.registry)
        gauge.set_function(read.health)
        gauge = Gauge("mcpfleet_journal_entries", "Outcomes not settled yet.", registry=self.registry)
        gauge.set_function(read.unsettled)
        used = Gauge("mcpfleet_slots_used", "Attempts running.", ["lane"], registry=self.registry)
        waiting = Gauge("mcpfleet_waiting", "Attempts waiting for a slot here.", ["lane"], registry=self.registry)
        for lane in Lane:
            used.labels(lane.value).set_function(_of(read.running, lane))
            waiting.labels(lane.value).set_function(_of(read.waiting, lane))
        self.registry.register(_Leaks(read.leaks))

    def _observe(self, tool: str, took_s: float, trace_id: str | None) -> None:
        histogram = self._took.get(tool)
        if histogram is None:
            histogram = self._took[tool] = self._seconds.labels(tool)
        histogram.observe(took_s, {"trace_id": trace_id} if trace_id else None)


class Gauges:
    """How to read the current values."""

    def __init__(
        self,
        *,
        connections: Callable[[], float],
        health: Callable[[], float],
        unsettled: Callable[[], float],
        running: Callable[[Lane], float],
        waiting: Callable[[Lane], float],
        leaks: Leaks,
    ) -> None:
        self.connections, self.health, self.unsettled = connections, health, unsettled
        self.running, self.waiting, self.leaks = running, waiting, leaks


class _Leaks(Collector):
    """What agents' runs had left behind: counted where it is found, read when scraped."""

    def __init__(self, read: Leaks) -> None:
        self._read = read

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One sample for each kind, also where there was none."""
        found = CounterMetricFamily(
            "mcpfleet_agent_leaks", "What agents' runs had left behind and was removed.", labels=["sidecar", "kind"]
        )
        for sidecar, kinds in self._read().items():
            for kind, count in kinds.items():
                found.add_metric([sidecar, kind], count)
        yield found


def routes(metrics: Metrics, health: Callable[[], dict[str, object]]) -> Sequence[BaseRoute]:
    """`/health` answers 503 when `health()["ok"]` is false."""

    async def show_health(_request: Request) -> Response:
        view = health()
        return JSONResponse(view, status_code=200 if view["ok"] else 503)

    async def show_metrics(request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"content-type": media_type})

    return [Route("/health", show_health), Route("/metrics", show_metrics)]


def _of(read: Callable[[Lane], float], lane: Lane) -> Callable[[], float]:
    return lambda: read(lane)

"""Prometheus metrics of the orchestrator. Each is incremented here and nowhere else.

Names `mcp_*` are the user's; labels are bounded: tools and nodes of this fleet, constant words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.happenings import (
    Accepted,
    AttemptEnded,
    AttemptReleased,
    AttemptRunning,
    Ended,
    EntryRefused,
    Happening,
    ModelsUsed,
    Progressed,
)
from orchestrator.observability.spend import SpendCounters
from tasks.invocation import State
from tasks.node import NodeState
from tasks.wire import BacklogView, NodeView, PoolView

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


class Metrics:
    """A listener of `Happenings`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "mcp_requests_total", "Invocations that ended, by tool and how", ["tool", "state"], registry=registry
        )
        self._errors = Counter("mcp_errors_total", "Invocations that ended in an error", ["code"], registry=registry)
        self._duration = Histogram(
            "mcp_request_duration_seconds",
            "From release to end of the attempt that ended an Invocation",
            ["tool"],
            buckets=SECONDS,
            registry=registry,
        )
        self._wait = Histogram(
            "mcp_queue_wait_seconds",
            "From accepted, or due, to released",
            ["lane"],
            buckets=SECONDS,
            registry=registry,
        )
        self._accepted = Counter("mcp_accepted_total", "Invocations accepted", registry=registry)
        self._attempts = Counter("mcp_attempts_total", "Attempts that ended, by how", ["ending"], registry=registry)
        self._placements = Counter(
            "mcp_placements_total",
            "Releases by pool and the reason that decided",
            ["pool", "reason"],
            registry=registry,
        )
        self._dead = Counter("mcp_dead_letters_total", "Dead letters kept, by reason", ["reason"], registry=registry)
        self._refused = Counter(
            "mcpfleet_events_refused", "Entries of nodes' streams refused, by reason", ["why"], registry=registry
        )
        self._spent = SpendCounters(registry)

    def hear(self, happening: Happening) -> None:
        """Count it."""
        match happening:
            case Accepted():
                self._accepted.inc()
            case AttemptReleased():
                self._wait.labels(happening.lane.value).observe(max(0.0, happening.waited_s))
                self._placements.labels(happening.pool, deciding(happening.reasons)).inc()
            case AttemptEnded():
                self._attempts.labels(happening.ending).inc()
            case Ended():
                self._ended(happening)
            case EntryRefused():
                self._refused.labels(happening.why).inc()
            case ModelsUsed():
                self._spent.count(happening.spent)
            case AttemptRunning() | Progressed():
                return

    def _ended(self, ended: Ended) -> None:
        self._requests.labels(ended.tool, ended.state.value).inc()
        if ended.last is not None:
            self._duration.labels(ended.tool).observe(max(0.0, ended.at - ended.last.released_at))
        error = ended.outcome.error if ended.outcome else None
        if error is not None and ended.state is not State.CANCELLED:
            self._errors.labels(error.code).inc()
        if ended.dead_reason is not None:
            self._dead.labels(ended.dead_reason).inc()


def deciding(reasons: Iterable[str]) -> str:
    """The constant word before the colon of the deciding reason, e.g. `affinity`."""
    last = ""
    for last in reasons:
        if last.startswith("affinity:"):
            break
    word = last.partition(":")[0]
    return word if word.replace("_", "").replace(" ", "").isalpha() and len(word) < 40 else "other"  # noqa: PLR2004


class FleetCollector(Collector):
    """Gauges read from the fleet when scraped, so that nothing has to be kept up to date."""

    def __init__(
        self,
        *,
        nodes: Callable[[], list[NodeView]],
        pools: Callable[[], list[PoolView]],
        backlog: Callable[[], BacklogView],
    ) -> None:
        self._nodes, self._pools, self._backlog = nodes, pools, backlog

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One scrape."""
        backlog = self._backlog()
        depth = GaugeMetricFamily("mcp_task_queue_depth", "Calls that wait or are outstanding", labels=["kind"])
        depth.add_metric(["waiting"], backlog.waiting)
        depth.add_metric(["outstanding"], backlog.outstanding)
        yield depth
        yield GaugeMetricFamily(
            "mcp_oldest_wait_seconds", "Age of the oldest waiting call", value=backlog.oldest_wait_s
        )
        health = GaugeMetricFamily("mcp_worker_health", "1: active with a good lease", labels=["node", "pool"])
        active = GaugeMetricFamily("mcp_active_connections", "Attempts a node holds", labels=["node", "lane"])
        for node in self._nodes():
            is_well = node.state is NodeState.ACTIVE and node.lease_left_s > 0
            health.add_metric([node.name, node.pool], 1.0 if is_well else 0.0)
            for lane, held in node.outstanding.items():
                active.add_metric([node.name, lane.value], held)
        yield health
        yield active
        slots = GaugeMetricFamily("mcp_pool_slots", "Slots of a pool's nodes", labels=["pool", "lane"])
        for pool in self._pools():
            for lane, number in pool.slots.items():
                slots.add_metric([pool.name, lane.value], number)
        yield slots

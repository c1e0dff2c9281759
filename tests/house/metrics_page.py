"""Writes docs/metrics.md from the registries of an orchestrator and a node: `make docs`. The house test compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from orchestrator.autoscaler.scale_policy import FleetLimits
from orchestrator.autoscaler.show.scale_metrics import ScaleCollector, ScaleMetrics, SightCollector
from orchestrator.observability.calls import LiveCalls
from orchestrator.observability.doors import DoorMetrics
from orchestrator.observability.fleet_gauges import FleetCollector
from orchestrator.observability.metrics import Metrics
from orchestrator.observability.objectives import Objectives
from orchestrator.observability.vitals import StandingCollector, Vitals
from orchestrator.testing.fleet import FakeFleet
from tasks.invocation import Lane
from tasks.labels import TOOLS_MAX, WORDS_MAX
from tasks.otlp import Otlp
from tasks.otlp_http import Answer
from tasks.otlp_metrics import OtlpCollector
from tasks.testing.clock import FakeClock
from worker.exporter import Gauges
from worker.exporter import Metrics as NodeMetrics

ROOT = Path(__file__).resolve().parents[2]
HEAD = """# Metrics

What `/metrics` of an orchestrator and of a node tell a Prometheus. `make docs` writes this page from the code.
"""
ABOUT = (
    "Counters end in `_total`; a histogram has `_bucket`, `_sum` and `_count`; both have `_created`, since when they "
    "count. Labels are bounded: the first "
    f"{TOOLS_MAX} tools and the first {WORDS_MAX} codes, endings, pools and the like have series of their own, what "
    "comes later counts under `other`. Projects, callers, arguments and paths are never labels. Waits and durations of "
    "the orchestrator carry the trace they are of as an exemplar, for whoever asks for `application/openmetrics-text`. "
    "So do the durations of nodes. Orchestrator and node share some names: rules tell them apart by `job`. Besides, an "
    "orchestrator has `process_*` of its process. `mcpfleet_telemetry_*` is there where a collector is named.\n\n"
    "The orchestrator's needs a key with the scope `metrics:read`, unless it listens on loopback only or "
    "`MCPFLEET_OPEN_METRICS` says otherwise. A replica that stands by passes a scraper on to the leader: scrape one "
    "address, else everything counts twice. A node's needs no key and names its tools: it listens on loopback unless "
    "`MCPFLEET_NODE_HTTP_HOST` says otherwise.\n\n"
    "What is made of them: [alerts and dashboards](alerts.md), [objectives](slo.md). What they cost: "
    "[decision 25](adr/0025-metrics.md)."
)


class Line(NamedTuple):
    """One metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def page() -> str:
    """The whole page."""
    parts = [HEAD, ABOUT]
    for title, registry in (("Orchestrator", _orchestrator()), ("Node", _node())):
        parts.append(f"\n## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|")
        for one in sorted(_lines(registry)):
            labels = ", ".join(f"`{label}`" for label in one.labels)
            parts.append(f"| `{one.name}` | {one.kind} | {labels} | {one.meaning.rstrip('.')} |")
    return "\n".join(parts) + "\n"


def _lines(registry: CollectorRegistry) -> Iterator[Line]:
    made: Any = registry._collector_to_names
    for collector in made:
        if isinstance(collector, MetricWrapperBase):
            family: Any = collector
            yield _line(family._name, family._type, family._labelnames, family._documentation)
            continue
        for family in collector.collect():
            yield _line(family.name, family.type, family._labelnames, family.documentation)


def _line(name: str, kind: str, labels: tuple[str, ...], meaning: str) -> Line:
    return Line(f"{name}_total" if kind == "counter" else name, kind, tuple(labels), meaning)


class _Book:
    def standing(self, _pool: str | None = None) -> list[object]:
        return []


async def _nothing() -> int:
    return 0


def _orchestrator() -> CollectorRegistry:
    registry, clock = CollectorRegistry(), FakeClock()
    fleet, calls, book = FakeFleet(clock=clock), LiveCalls(clock), _Book()
    Metrics(registry, calls)
    Objectives(registry, calls, clock, lease_ttl_s=7.0)
    DoorMetrics(registry, clock, lambda: None)
    Vitals(registry, dead_count=_nothing, redis=None, clock=clock)  # type: ignore[arg-type]
    ScaleMetrics(registry)
    registry.register(OtlpCollector(_otlp()))
    for collector in (
        FleetCollector(nodes=fleet.nodes, pools=fleet.pools, backlog=fleet.backlog),
        StandingCollector(leads=lambda: True, rounds=list, expiries=list),
        ScaleCollector(book, {}, FleetLimits()),  # type: ignore[arg-type]
        SightCollector(dict),
    ):
        registry.register(collector)
    return registry


def _otlp() -> Otlp:
    def send(_entries: Sequence[bytes], _count: int) -> Answer:
        return Answer(0)

    return Otlp(send, send, ratio=1.0)


def _node() -> CollectorRegistry:
    metrics = NodeMetrics()
    metrics.registry.register(OtlpCollector(_otlp()))

    def none(_lane: Lane | None = None) -> float:
        return 0.0

    metrics.watch(Gauges(connections=none, health=none, unsettled=none, running=none, waiting=none, leaks=dict))
    return metrics.registry


if __name__ == "__main__":
    (ROOT / "docs/metrics.md").write_text(page(), encoding="utf-8")

"""Prometheus metrics of the autoscaler. Each is incremented here and nowhere else.

Labels are bounded: pools and providers of the pools file, constant words.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.autoscaler.book.claims import ClaimBook, cost_eur_h
from orchestrator.autoscaler.events import (
    Decided,
    Ended,
    Failed,
    Joined,
    Leaked,
    LetGo,
    Ordered,
    ScaleEvent,
    TakenBack,
)
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.values import ClaimState, Observation

BOOT_S = (1, 2, 5, 10, 20, 30, 60, 90, 120, 180, 300, 600, 900, 1800)
LOST = "lost"
"""Of a machine that served, and was given up."""


class ScaleMetrics:
    """Hears `events.py`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._machines = Counter(
            "mcpfleet_scale_machines_total",
            "Machines by what became of them: ordered, joined, let_go, taken_back, ended",
            ["pool", "event"],
            registry=registry,
        )
        self._failed = Counter(
            "mcpfleet_scale_failures_total",
            "Machines that came to nothing, by why",
            ["pool", "why"],
            registry=registry,
        )
        self._leaks = Counter(
            "mcpfleet_scale_leaks_total",
            "Machines under our tag that no claim accounts for",
            ["provider", "why"],
            registry=registry,
        )
        self._decisions = Counter(
            "mcpfleet_scale_decisions_total",
            "Decisions by direction: up, down, keep",
            ["pool", "direction"],
            registry=registry,
        )
        self._target = Gauge(
            "mcpfleet_scale_target_machines", "Machines that there should be", ["pool"], registry=registry
        )
        self._alerts = Gauge(
            "mcpfleet_scale_alerts", "Alerts of the last decision of a pool", ["pool"], registry=registry
        )
        self._boot = Histogram(
            "mcpfleet_scale_boot_seconds",
            "From order to a node that joined",
            ["pool", "provider"],
            buckets=BOOT_S,
            registry=registry,
        )

    def hear(self, event: ScaleEvent) -> None:
        """Count it."""
        match event:
            case Ordered():
                self._machines.labels(event.claim.pool, "ordered").inc()
            case Joined():
                self._machines.labels(event.claim.pool, "joined").inc()
                self._boot.labels(event.claim.pool, event.claim.rung.provider).observe(event.boot_s)
            case LetGo():
                self._machines.labels(event.claim.pool, "let_go").inc()
            case TakenBack():
                self._machines.labels(event.claim.pool, "taken_back").inc()
            case Failed():
                self._failed.labels(event.claim.pool, event.claim.failed_with or LOST).inc()
            case Ended():
                self._machines.labels(event.claim.pool, "ended").inc()
            case Leaked():
                self._leaks.labels(event.provider, event.why).inc()
            case Decided():
                self._decided(event)

    def _decided(self, event: Decided) -> None:
        decision = event.decision
        direction = (
            "up" if decision.target > decision.before else "down" if decision.target < decision.before else "keep"
        )
        self._decisions.labels(decision.pool, direction).inc()
        self._target.labels(decision.pool).set(decision.target)
        self._alerts.labels(decision.pool).set(len(decision.alerts))


class ScaleCollector(Collector):
    """Gauges read from the claims and the pools file when scraped."""

    def __init__(self, book: ClaimBook, policies: Mapping[str, ScalePolicy], limits: FleetLimits) -> None:
        self._book, self._policies, self._limits = book, policies, limits

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One scrape."""
        states: defaultdict[str, Tally[ClaimState]] = defaultdict(Tally)
        for claim in self._book.standing():
            states[claim.pool][claim.state] += 1
        machines = GaugeMetricFamily("mcpfleet_scale_machines", "Claims by state", labels=["pool", "state"])
        cost = GaugeMetricFamily(
            "mcpfleet_scale_cost_eur_per_hour", "What machines cost an hour, where prices are known", labels=["pool"]
        )
        for pool in sorted({*self._policies, *states}):
            for state in ClaimState:
                if state is not ClaimState.GONE:
                    machines.add_metric([pool, state.value], states[pool][state])
            cost.add_metric([pool], cost_eur_h(self._book.standing(pool)))
        yield from (machines, cost, self._budgets(), self._fleet_budget())

    def _budgets(self) -> GaugeMetricFamily:
        budgets = GaugeMetricFamily(
            "mcpfleet_scale_budget_eur_per_hour", "What a pool may cost an hour, where it has a limit", labels=["pool"]
        )
        for pool, policy in self._policies.items():
            if policy.budget_eur_h is not None:
                budgets.add_metric([pool], policy.budget_eur_h)
        return budgets

    def _fleet_budget(self) -> GaugeMetricFamily:
        budget = GaugeMetricFamily(
            "mcpfleet_scale_fleet_budget_eur_per_hour", "What all pools may cost an hour, where there is a limit"
        )
        if self._limits.budget_eur_h is not None:
            budget.add_metric([], self._limits.budget_eur_h)
        return budget


class SightCollector(Collector):
    """What the last round saw, as far as it was decided on."""

    def __init__(self, seen: Callable[[], Mapping[str, Observation]]) -> None:
        self._seen = seen

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One scrape."""
        waiting = GaugeMetricFamily(
            "mcpfleet_scale_seen_waiting", "Calls that wait, as the autoscaler sees them", labels=["pool", "lane"]
        )
        arrivals = GaugeMetricFamily(
            "mcpfleet_scale_seen_arrivals_per_second", "Arrivals of the last minute", labels=["pool", "lane"]
        )
        wait = GaugeMetricFamily(
            "mcpfleet_scale_seen_wait_p95_seconds", "Queue wait of its window", labels=["pool", "lane"]
        )
        blind = GaugeMetricFamily(
            "mcpfleet_scale_blind", "1: what it sees of the pool cannot be trusted", labels=["pool"]
        )
        for pool, seen in self._seen().items():
            blind.add_metric([pool], 1.0 if seen.missing else 0.0)
            for lane, one in seen.lanes.items():
                waiting.add_metric([pool, lane.value], one.waiting)
                arrivals.add_metric([pool, lane.value], one.arrivals_per_s)
                if one.wait_p95_s is not None:
                    wait.add_metric([pool, lane.value], one.wait_p95_s)
        yield from (waiting, arrivals, wait, blind)

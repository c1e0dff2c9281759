"""The service level objectives: what is promised, which events are good, how much of the error budget is left.

The one source. `GET /v1/objectives` answers from what is counted here; the rules and the dashboard of Prometheus are
made from the same list (deploy/prometheus/slo.py), on the counter that is incremented here. Owns the definitions;
docs/slo.md says them in words. Source: The Site Reliability Workbook, chapters 2 and 5.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter

from orchestrator.happenings import AttemptEnded, AttemptReleased, Ended, Happening
from orchestrator.observability.calls import LiveCalls
from tasks.clock import Clock
from tasks.invocation import Lane, State
from tasks.wire_objectives import ObjectivesView, ObjectiveView

WINDOW_DAYS = 28
"""Four whole weeks, so that weekends weigh the same in each."""
SHORT_TOOL_S = 0.05
"""A call is short where its tool itself took no longer: no tool declares how long it takes, so its run decides."""
HOUR_S, SNAPSHOT_EVERY_S = 3600.0, 60.0
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 45, 60, 120, 300)
DISRUPTED_MAX = 20_000
LOSSES = frozenset({"node_lost", "node_restarted", "node_replaced", "node_left", "node_cut_off"})
"""Codes of attempts that were lost with their nodes (orchestrator/settling/verdict.py)."""
OURS = LOSSES | {"node_error", "blob_unavailable"}
"""Codes of ends that the fleet answers for, and not the tool, its arguments or its server."""

Kind = Literal["latency", "availability", "failover"]


@dataclass(frozen=True, slots=True)
class Objective:
    """One promise: of all its events at least `target` are good.

    Attributes:
        name: constant; a label value.
        title: the promise, as a sentence.
        kind: which events it is of.
        target: share of good ones, below 1: a budget of nothing cannot be reckoned with.
        threshold_s: an event is good below it; None where time does not decide.
    """

    name: str
    title: str
    kind: Kind
    target: float
    threshold_s: float | None = None


OBJECTIVES = (
    Objective("short_calls_p50", "Half of all short calls are answered within 100 ms.", "latency", 0.5, 0.1),
    Objective("short_calls_p99", "99 of 100 short calls are answered within 500 ms.", "latency", 0.99, 0.5),
    Objective("availability", "999 of 1,000 calls are not failed by the fleet itself.", "availability", 0.999),
    Objective("failover", "99 of 100 calls whose node was lost go on within 30 s.", "failover", 0.99, 30.0),
)


class _Snapshot(NamedTuple):
    at_s: float
    samples: int
    bad: int


class Tally:
    """What one objective counted."""

    def __init__(self, objective: Objective, good: Counter, bad: Counter) -> None:
        self.objective, self._good, self._bad = objective, good, bad
        self.samples = self.bad = 0
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._past: deque[_Snapshot] = deque(maxlen=int(HOUR_S / SNAPSHOT_EVERY_S) + 1)

    def timed(self, took_s: float, now_s: float) -> None:
        """An event that took so long."""
        assert self.objective.threshold_s is not None
        self._buckets[bisect_left(BUCKETS_S, took_s)] += 1
        self.judged(is_good=took_s < self.objective.threshold_s, now_s=now_s)

    def judged(self, *, is_good: bool, now_s: float) -> None:
        """An event that was good or was not."""
        past = self._past
        if not past or now_s - past[-1].at_s >= SNAPSHOT_EVERY_S:
            past.append(_Snapshot(now_s, self.samples, self.bad))
        self.samples += 1
        if is_good:
            self._good.inc()
        else:
            self.bad += 1
            self._bad.inc()

    def quantile_s(self) -> float | None:
        """The time below which `target` of the events stayed, between two bounds of the histogram; None: unknown.

        Source: Prometheus, histogram_quantile: linear within a bucket, the last bound for what is above it.
        """
        if not self.samples or self.objective.threshold_s is None:
            return None
        rank, below = self.objective.target * self.samples, 0
        for number, count in enumerate(self._buckets[:-1]):
            if count and below + count >= rank:
                low = BUCKETS_S[number - 1] if number else 0.0
                return low + (BUCKETS_S[number] - low) * (rank - below) / count
            below += count
        return BUCKETS_S[-1]

    def burn_rate(self, now_s: float) -> float | None:
        """Of the last hour, or of the time since the beginning where that is shorter."""
        before = next((one for one in self._past if now_s - one.at_s <= HOUR_S), None)
        if before is None or self.samples == before.samples:
            return None
        return (self.bad - before.bad) / (self.samples - before.samples) / (1 - self.objective.target)

    def view(self, now_s: float) -> ObjectiveView:
        """As it is shown."""
        wanted, share = self.objective, 1 - self.bad / self.samples if self.samples else None
        return ObjectiveView(
            name=wanted.name,
            title=wanted.title,
            kind=wanted.kind,
            target=wanted.target,
            threshold_s=wanted.threshold_s,
            samples=self.samples,
            bad=self.bad,
            measured=share,
            measured_s=self.quantile_s(),
            is_met=None if share is None else share >= wanted.target,
            budget_left=None if share is None else 1 - (1 - share) / (1 - wanted.target),
            burn_rate_1h=self.burn_rate(now_s),
        )


class Objectives:
    """Counts events by objective. A listener of `Happenings`; doors tell of what they could not take."""

    def __init__(self, registry: CollectorRegistry, calls: LiveCalls, clock: Clock, *, lease_ttl_s: float) -> None:
        events = Counter(
            "mcpfleet_objective_events_total",
            "Events of each service level objective, by whether they were good",
            ["objective", "verdict"],
            registry=registry,
        )
        self._calls, self._clock, self._lease_ttl_s = calls, clock, lease_ttl_s
        self.tallies = {
            one.name: Tally(one, events.labels(one.name, "good"), events.labels(one.name, "bad")) for one in OBJECTIVES
        }
        self._short = [tally for tally in self.tallies.values() if tally.objective.kind == "latency"]
        self._availability, self._failover = self.tallies["availability"], self.tallies["failover"]
        self._disrupted: dict[str, float] = {}
        """Call → monotonic clock of the last word of the node that it was lost with."""
        self._since = clock.wall_s()

    def hear(self, happening: Happening) -> None:
        """Count it."""
        match happening:
            case AttemptReleased():
                if self._disrupted and happening.invocation_id in self._disrupted:
                    self._goes_on(happening.invocation_id)
            case AttemptEnded():
                if happening.error is not None and happening.to is State.WAITING:
                    self._ended(happening)
            case Ended():
                self._judge(happening)
            case _:
                return

    def refused(self) -> None:
        """A door could not take a call, for a fault of ours (5xx)."""
        self._availability.judged(is_good=False, now_s=self._clock.mono_s())

    def show(self) -> ObjectivesView:
        """All of them, now."""
        now_s = self._clock.mono_s()
        return ObjectivesView(
            since=self._since,
            at=self._clock.wall_s(),
            window_days=WINDOW_DAYS,
            items=[tally.view(now_s) for tally in self.tallies.values()],
        )

    def _ended(self, ended: AttemptEnded) -> None:
        """Lost with its node: its time counts from when that was last heard of, a lease before."""
        assert ended.error is not None
        if ended.error.code not in LOSSES or len(self._disrupted) >= DISRUPTED_MAX:
            return
        silent_s = self._lease_ttl_s if ended.error.code == "node_lost" else 0.0
        self._disrupted.setdefault(ended.invocation_id, self._clock.mono_s() - silent_s)

    def _goes_on(self, invocation_id: str) -> None:
        now_s = self._clock.mono_s()
        self._failover.timed(now_s - self._disrupted.pop(invocation_id), now_s)

    def _judge(self, ended: Ended) -> None:
        self._disrupted.pop(ended.invocation_id, None)
        if ended.state is State.CANCELLED:
            return
        now_s, live, last = self._clock.mono_s(), self._calls.get(ended.invocation_id), ended.last
        self._availability.judged(is_good=not is_ours(ended), now_s=now_s)
        if live is None or live.is_delayed or last is None or ended.state is not State.SUCCEEDED:
            return
        if last.lane is Lane.TOOLS and last.started_at is not None and last.at - last.started_at <= SHORT_TOOL_S:
            for tally in self._short:
                tally.timed(now_s - live.accepted_s, now_s)


def is_ours(ended: Ended) -> bool:
    """The fleet itself failed this call: lost it, broke under it, or found no room before its deadline."""
    if ended.state is State.LOST or (ended.state is State.EXPIRED and ended.last is None):
        return True
    error = ended.outcome.error if ended.outcome else None
    return error is not None and error.code in OURS

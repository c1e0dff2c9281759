"""What happened in one lane of one pool, as far back as is needed, and its summary.

Owns which end of an attempt counts as service, as a fault, or as neither. Refuses to know pools.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.autoscaler.observe.attribution import Demand
from orchestrator.autoscaler.observe.windows import Samples, Seconds, binned, percentile, spread, trend
from orchestrator.autoscaler.values import LaneSeen
from orchestrator.happenings import AttemptEnded
from tasks.outcome import Failure

RATE_S = 60
"""Of the arrival rate and of waiting times."""
BIN_S = 10
TREND_S = 240
FAULTS_S = 300.0
SERVED = frozenset({"succeeded", "failed"})
"""Endings of attempts that had their slot for as long as they needed it."""
LOST = frozenset({"lost", "superseded"})
"""Endings of attempts that their node took with it."""
FAULTS = frozenset({Failure.NOT_STARTED, Failure.MAYBE_STARTED, Failure.POISON})
"""Of server or node. What the tool answers is no fault of a machine, and a quota's end is none."""
NO_FAULTS = frozenset({"tool_timeout", "blob_unavailable"})
"""Callers choose timeouts; the blob store is the orchestrator's."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a lane has now.

    Attributes:
        queued: released and not started.
        running: started and not ended.
        slots: of ready nodes.
        slots_per_machine: of one more.
    """

    queued: int = 0
    running: int = 0
    slots: int = 0
    slots_per_machine: int = 0


class LaneSensor:
    """One lane of one pool."""

    __slots__ = ("_arrivals", "_faults", "_services", "_waits")

    def __init__(self) -> None:
        self._arrivals = Seconds()
        self._waits = Samples()
        self._services = Samples()
        self._faults = Samples()

    def arrived(self, due: float) -> None:
        """A call that became due then was released here."""
        self._arrivals.add(int(due))

    def withdrawn(self, due: float) -> None:
        """It came back without having started, and waits on."""
        self._arrivals.add(int(due), -1)

    def started(self, at: float, due: float) -> None:
        """A call that was due then was started."""
        self._waits.add(at, at - due if at > due else 0.0)

    def ended(self, ended: AttemptEnded) -> None:
        """An attempt ended."""
        is_served = ended.ending in SERVED
        if is_served and ended.started_at is not None:
            self._services.add(ended.at, max(0.0, ended.at - ended.started_at))
        if is_served or ended.ending in LOST:
            self._faults.add(ended.at, 1.0 if _is_fault(ended) else 0.0)

    def seen(self, demands: Iterable[Demand], capacity: Capacity, *, now: float, watched_s: float) -> LaneSeen:
        """Summary at wall clock `now`, by one who has listened for so long."""
        waiting = list(demands)
        rate, slope, sigma = self._arrival_rate(waiting, int(now), int(watched_s))
        waits = self._waits.since(now - RATE_S)
        service = spread(self._services.all())
        faults = self._faults.since(now - FAULTS_S)
        return LaneSeen(
            waiting=sum(demand.calls for demand in waiting),
            queued=capacity.queued,
            running=capacity.running,
            slots=capacity.slots,
            slots_per_machine=capacity.slots_per_machine,
            oldest_wait_s=max((max(0.0, now - demand.oldest_due) for demand in waiting), default=0.0),
            wait_p50_s=percentile(waits, 0.5),
            wait_p95_s=percentile(waits, 0.95),
            arrivals_per_s=rate,
            arrivals_trend=slope,
            arrivals_trend_sigma=sigma,
            service_mean_s=service.mean if service else None,
            service_scv=service.scv if service else 1.0,
            service_p95_s=service.p95 if service else None,
            error_rate=sum(faults) / len(faults) if faults else 0.0,
        )

    def _arrival_rate(self, waiting: list[Demand], now: int, watched_s: int) -> tuple[float, float, float]:
        """Of calls by the second in which they became due: those that were released, and those that wait."""
        recent_s = min(RATE_S, watched_s)
        bins = min(TREND_S, watched_s) // BIN_S
        recent = self._sums(waiting, now - recent_s, 1, recent_s)
        rates = [count / BIN_S for count in self._sums(waiting, now - bins * BIN_S, BIN_S, bins)]
        return (sum(recent) / recent_s if recent_s else 0.0, *trend(rates, BIN_S))

    def _sums(self, waiting: list[Demand], first: int, step: int, number: int) -> list[int]:
        total = self._arrivals.sums(first, step, number)
        for demand in waiting:
            total = [a + b for a, b in zip(total, binned(demand.by_second, first, step, number), strict=True)]
        return total


def _is_fault(ended: AttemptEnded) -> bool:
    if ended.ending in LOST:
        return True
    error = ended.error
    return error is not None and error.failure in FAULTS and error.code not in NO_FAULTS

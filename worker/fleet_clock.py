"""The orchestrator's wall clock, as a node can know it: its own monotonic clock plus what renewals teach.

Deadlines and the times of outcomes are said on the orchestrator's clock, so a node whose wall clock is
minutes off, or is set while it works, neither expires calls nor dates them wrongly. Owns the estimate;
refuses to be read as a lease: leases count on the monotonic clock alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from tasks.clock import Clock

KEPT = 8
"""Renewals whose answers are compared, a quarter of a minute: one of them found the network quiet."""
DRIFT_S = 0.01
"""Two monotonic clocks drift apart by less meanwhile."""
WORTH_SAYING_S = 1.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sample:
    """What one answer says.

    Attributes:
        ahead_s: the orchestrator's wall clock less our monotonic one, if the answer was written in the
            middle of its round trip.
        error_s: half of the round trip. The truth is within it, wherever in between the answer was written.
    """

    ahead_s: float
    error_s: float

    def agrees_with(self, other: Sample) -> bool:
        """Whether one truth could have given both."""
        return abs(self.ahead_s - other.ahead_s) <= self.error_s + other.error_s + DRIFT_S


class FleetClock:
    """Satisfies `tasks.clock.Clock`. Before the first answer it is the machine's own clock."""

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._samples: list[Sample] = []
        self._best: Sample | None = None
        self._said_s = 0.0

    def wall_s(self) -> float:
        """Seconds since the epoch, by the orchestrator."""
        return self._own.wall_s() if self._best is None else self._own.mono_s() + self._best.ahead_s

    def mono_s(self) -> float:
        """The machine's own."""
        return self._own.mono_s()

    def off_s(self) -> float:
        """Seconds by which this machine's wall clock is ahead of the orchestrator's."""
        return self._own.wall_s() - self.wall_s()

    def learn(self, fleet_wall_s: float | None, *, sent_at_s: float) -> None:
        """An answer has just come.

        Args:
            fleet_wall_s: what it says the time is; None from an orchestrator that does not say.
            sent_at_s: when its request was sent, monotonic.

        Source: Cristian 1989, the sample of the shortest round trip; those that the newest one contradicts
        are of a clock that was set since.
        """
        if fleet_wall_s is None:
            return
        received_s = self._own.mono_s()
        newest = Sample(fleet_wall_s - (sent_at_s + received_s) / 2, (received_s - sent_at_s) / 2)
        self._samples = [newest, *(old for old in self._samples if old.agrees_with(newest))][:KEPT]
        self._best = min(self._samples, key=lambda sample: sample.error_s)
        self._say()

    def _say(self) -> None:
        off_s = self.off_s()
        if abs(off_s - self._said_s) > WORTH_SAYING_S:
            self._said_s = off_s
            _log.warning(
                "clock_off",
                ahead_s=round(off_s, 1),
                effect="deadlines follow the orchestrator's clock; set this machine's for its logs' sake",
            )

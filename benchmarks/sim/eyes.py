"""What the sensors would measure in the simulated pool: windows of a minute, and of five for service times.

No rule sees more of the trace than this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import sqrt

from orchestrator.autoscaler.values import LaneSeen
from tasks.invocation import Lane

TICK_S = 15.0
MINUTE = 4
"""Ticks."""
TREND = 8
"""Ticks over which the slope of arrivals is fitted."""
SERVICES = 20
"""Ticks over which service times are averaged."""
BOOTS = 20


class Eyes:
    """Counts per tick; `lane` closes one. `arrived` and `waits` are of the present tick."""

    def __init__(self) -> None:
        self._boots: deque[float] = deque(maxlen=BOOTS)
        self.arrived = 0
        self.waits: list[float] = []
        self._service = [0.0, 0.0, 0.0]
        self._arrivals: deque[int] = deque(maxlen=TREND)
        self._wait_bins: deque[list[float]] = deque(maxlen=MINUTE)
        self._service_bins: deque[list[float]] = deque(maxlen=SERVICES)
        self._running, self._busy_s, self._busy_at = 0, 0.0, 0.0

    def ended(self, service_s: float) -> None:
        """A call ended."""
        sums = self._service
        sums[0] += 1.0
        sums[1] += service_s
        sums[2] += service_s * service_s

    def tally(self, now: float, change: int) -> None:
        """So many more calls run."""
        self._busy_s += self._running * (now - self._busy_at)
        self._busy_at = now
        self._running += change

    def booted(self, boot_s: float) -> None:
        """A machine joined, so long after it was ordered."""
        self._boots.append(boot_s)

    def boot_p90_s(self) -> float | None:
        """None before the first boot."""
        return sorted(self._boots)[int(0.9 * (len(self._boots) - 1) + 0.5)] if self._boots else None

    def lane(
        self, now: float, *, waiting: int, oldest_wait_s: float, slots: int, each: int
    ) -> tuple[Mapping[Lane, LaneSeen], float | None]:
        """The tools lane, and the mean use of processors: as slots are used, in the last tick."""
        self.tally(now, 0)
        cpu = min(1.0, self._busy_s / TICK_S / slots) if slots else None
        self._arrivals.append(self.arrived)
        self._wait_bins.append(self.waits)
        self._service_bins.append(self._service)
        self.arrived, self.waits, self._service, self._busy_s = 0, [], [0.0, 0.0, 0.0], 0.0
        minute = list(self._arrivals)[-MINUTE:]
        waits = sorted(wait for one in self._wait_bins for wait in one)
        slope, sigma = _trend([count / TICK_S for count in self._arrivals])
        mean_s, scv = self._services()
        seen = LaneSeen(
            waiting=waiting,
            running=self._running,
            slots=slots,
            slots_per_machine=each,
            oldest_wait_s=oldest_wait_s,
            wait_p50_s=waits[len(waits) // 2] if waits else None,
            wait_p95_s=waits[int(0.95 * len(waits))] if waits else None,
            arrivals_per_s=sum(minute) / (TICK_S * len(minute)),
            arrivals_trend=slope,
            arrivals_trend_sigma=sigma,
            service_mean_s=mean_s,
            service_scv=scv,
        )
        return {Lane.TOOLS: seen}, cpu

    def _services(self) -> tuple[float | None, float]:
        count, total, squares = (sum(one[part] for one in self._service_bins) for part in range(3))
        if not count:
            return None, 1.0
        mean = total / count
        return mean, max(0.0, squares / count - mean * mean) / (mean * mean)


def _trend(rates: list[float]) -> tuple[float, float]:
    """Slope per second per second by least squares, and its standard error."""
    count = len(rates)
    if count < TREND:
        return 0.0, 0.0
    middle, mean = (count - 1) / 2, sum(rates) / count
    spread = sum((index - middle) ** 2 for index in range(count))
    slope = sum((index - middle) * (rate - mean) for index, rate in enumerate(rates)) / spread
    rest = sum((rate - mean - slope * (index - middle)) ** 2 for index, rate in enumerate(rates))
    return slope / TICK_S, sqrt(rest / (count - 2) / spread) / TICK_S

"""What somebody who knows the day would order.

Per minute, the fewest machines that keep the 95th percentile of waiting under the target at the minute's true
rate and true service time (queueing theory, no headroom). They are ordered one boot time ahead. Paid hours are
bought from left to right: a new one only where what is paid for does not reach, one more hour only where the
machine is still needed. For hours of equal length that greedy choice is the cheapest cover of the needs, were
boots free. It is a limit for rules that meet the target, not for those that let calls wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from benchmarks.sim.calls import SLOTS
from benchmarks.sim.traces import SERVICE_S, SERVICE_SCV, Drawn
from orchestrator.autoscaler.decide.queueing import slots_needed

STEP_S = 60.0


@dataclass(frozen=True)
class Plan:
    """Machines needed, per minute of the day."""

    needs: list[int]
    boot_s: float

    @classmethod
    def of(cls, drawn: Drawn, wait_s: float, most: int) -> Plan:
        """From the trace's own rate."""
        minutes = ceil(drawn.trace.length_s / STEP_S)
        needs = []
        for minute in range(minutes):
            rate = max(drawn.rate(minute * STEP_S + part * STEP_S / 4) for part in range(4))
            slots = slots_needed(rate * SERVICE_S, SERVICE_S, wait_s, scv=SERVICE_SCV, most=most * SLOTS)
            needs.append(max(1, ceil(slots / SLOTS)))
        return cls(needs, drawn.trace.boot_s)

    def most(self, start: float, end: float) -> int:
        """The highest need within these seconds of the day."""
        first = min(len(self.needs) - 1, int(start / STEP_S))
        return max(self.needs[first : int(end / STEP_S) + 1])


def work_h(drawn: Drawn) -> float:
    """Machine-hours if every slot were always busy: nothing that does the work can use less."""
    return sum(drawn.services) / SLOTS / 3600.0

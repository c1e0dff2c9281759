"""Calls in the simulated pool: they arrive, queue in order, run on the machine with most room, and end.

Between two events of SimPy's clock no machine comes or goes, so calls are played in one go up to its time:
ten times faster than an event each. Owns waits and responses, and what the eyes count.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from benchmarks.sim.eyes import Eyes
from benchmarks.sim.traces import Drawn
from orchestrator.autoscaler.values import ClaimState

SLOTS = 4


@dataclass(eq=False, slots=True)
class Box:
    """One machine."""

    id: str
    ordered_at: float
    state: ClaimState = ClaimState.BOOTING
    calls: set[int] = field(default_factory=set)
    idle_since: float = 0.0
    has_notice: bool = False
    gone_at: float | None = None
    told: bool = False


class Calls:
    """Those of one day. `play` brings them up to now; who changes `open` plays first."""

    def __init__(self, drawn: Drawn, eyes: Eyes) -> None:
        self.waits = [-1.0] * len(drawn.arrivals)
        self.responses = [-1.0] * len(drawn.arrivals)
        self.open: list[Box] = []
        """Machines that take calls."""
        self._arrivals, self._services, self._eyes = drawn.arrivals, drawn.services, eyes
        self._queue: deque[int] = deque()
        self._ends: list[tuple[float, int, Box]] = []
        self._next = 0
        self._now = 0.0

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._queue)

    def oldest_wait_s(self, now: float) -> float:
        """0 where none waits."""
        return now - self._arrivals[min(self._queue)] if self._queue else 0.0

    def play(self, until: float) -> None:
        """Everything that happens up to this moment. The one hot loop: nothing in it is called that need not be."""
        arrivals, ends, queue, eyes = self._arrivals, self._ends, self._queue, self._eyes
        self._serve(self._now)  # machines may have come since
        coming = arrivals[self._next] if self._next < len(arrivals) else inf
        while True:
            if ends and ends[0][0] <= coming:
                if ends[0][0] > until:
                    break
                now, number, box = heappop(ends)
                if number not in box.calls:
                    continue  # cut with its machine
                box.calls.remove(number)
                eyes.tally(now, -1)
                eyes.ended(self._services[number])
                self.responses[number] = now - arrivals[number]
                if not box.calls:
                    box.idle_since = now
            else:
                if coming > until:
                    break
                now = coming
                eyes.arrived += 1
                queue.append(self._next)
                self._next += 1
                coming = arrivals[self._next] if self._next < len(arrivals) else inf
            if queue:
                self._serve(now)
        self._now = until

    def again(self, numbers: list[int]) -> None:
        """Calls that were lost with their machine wait once more, before all others."""
        self._queue.extendleft(reversed(numbers))

    def cut(self, box: Box, now: float) -> list[int]:
        """Take a machine's calls from it."""
        lost = sorted(box.calls)
        box.calls.clear()
        self._eyes.tally(now, -len(lost))
        return lost

    def close(self, end: float) -> None:
        """What has not started or ended by now is counted as if it did now."""
        for number, at in enumerate(self._arrivals):
            if self.waits[number] < 0.0:
                self.waits[number] = end - at
            if self.responses[number] < 0.0:
                self.responses[number] = end - at

    def _serve(self, now: float) -> None:
        queue = self._queue
        while queue:
            best, least = None, SLOTS
            for box in self.open:
                if (held := len(box.calls)) < least:
                    best, least = box, held
            if best is None:
                return
            number = queue.popleft()
            if self.waits[number] < 0.0:
                self.waits[number] = wait_s = now - self._arrivals[number]
                self._eyes.waits.append(wait_s)
            best.calls.add(number)
            self._eyes.tally(now, 1)
            heappush(self._ends, (now + self._services[number], number, best))

"""How the fleet went in the last minute: rates, and how long calls waited. For screens, kept in memory.

Prometheus has the same by its own windows; this is what an operator without one sees. A new leader's begins empty.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from orchestrator.happenings import Accepted, AttemptReleased, Ended, Happening
from tasks.clock import Clock
from tasks.invocation import State
from tasks.pulse_wire import PulseView

WINDOW_S = 60
WAITS_MAX = 8192
"""Of a busier minute, the newest so many speak for all."""
BADLY = frozenset({State.FAILED, State.EXPIRED, State.LOST})


@dataclass(slots=True)
class _Second:
    """Counts of one second."""

    at: int = -1
    accepted: int = 0
    ended: int = 0
    failed: int = 0


class Pulse:
    """A listener of `Happenings`. About 1 µs for each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.mono_s()
        self._seconds = [_Second() for _ in range(WINDOW_S)]
        self._waits: deque[tuple[float, float]] = deque(maxlen=WAITS_MAX)

    def hear(self, happening: Happening) -> None:
        """Count it."""
        match happening:
            case Accepted():
                self._now().accepted += 1
            case AttemptReleased():
                self._waits.append((self._clock.mono_s(), happening.waited_s))
            case Ended():
                second = self._now()
                second.ended += 1
                second.failed += happening.state in BADLY
            case _:
                return

    def view(self) -> PulseView:
        """Of the last minute, or since this process began where that is less."""
        now = self._clock.mono_s()
        window_s = min(float(WINDOW_S), max(1.0, now - self._began))
        seen = [second for second in self._seconds if now - second.at <= WINDOW_S and second.at >= 0]
        waits = sorted(max(0.0, waited) for at, waited in self._waits if now - at <= WINDOW_S)
        return PulseView(
            window_s=window_s,
            accepted_per_s=sum(second.accepted for second in seen) / window_s,
            ended_per_s=sum(second.ended for second in seen) / window_s,
            failed_per_s=sum(second.failed for second in seen) / window_s,
            wait_p50_s=quantile(waits, 0.5),
            wait_p95_s=quantile(waits, 0.95),
        )

    def _now(self) -> _Second:
        at = int(self._clock.mono_s())
        second = self._seconds[at % WINDOW_S]
        if second.at != at:
            second.at, second.accepted, second.ended, second.failed = at, 0, 0, 0
        return second


def quantile(ordered: list[float], share: float) -> float | None:
    """The smallest value that `share` of them do not exceed; None of nothing. Nearest rank, no interpolation."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]

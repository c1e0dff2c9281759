"""A clock that moves only when told to."""

from __future__ import annotations


class FakeClock:
    """Satisfies `tasks.clock.Clock`."""

    def __init__(self, wall_s: float = 1_800_000_000.0, mono_s: float = 1_000.0) -> None:
        self._wall_s = wall_s
        self._mono_s = mono_s

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return self._wall_s

    def mono_s(self) -> float:
        """Monotonic seconds."""
        return self._mono_s

    def advance(self, seconds: float) -> None:
        """Both clocks move on together."""
        self._wall_s += seconds
        self._mono_s += seconds

    def step_wall(self, seconds: float) -> None:
        """Only the wall clock jumps, as NTP or an operator would make it."""
        self._wall_s += seconds

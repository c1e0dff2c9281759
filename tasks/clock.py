"""Time as a dependency: one wall clock for people, one monotonic clock for leases and waits.

Nothing outside this module and `tasks/testing` decides how time is read.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the domain needs of time."""

    def wall_s(self) -> float:
        """Seconds since the epoch. May jump; for display, deadlines and ids."""
        ...

    def mono_s(self) -> float:
        """Seconds that only grow. For leases, backoff and every interval."""
        ...


SLEW = 0.05
"""Of the time that passes: an interval that is told by a `SteadyClock` is wrong by no more."""


class SystemClock:
    """The machine's own clocks."""

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def mono_s(self) -> float:
        """Seconds since an arbitrary start, never backwards."""
        return time.monotonic()


class SteadyClock:
    """A wall clock that never jumps: where the machine's does, it follows by 3 s a minute.

    For the orchestrator: a machine that is set right while calls wait must neither expire them at once nor
    make their retries wait for minutes. Between readings it counts as the monotonic clock does.
    """

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._read_at_s = own.mono_s()
        self._ahead_s = own.wall_s() - self._read_at_s

    def wall_s(self) -> float:
        """Seconds since the epoch; grows whenever time passes."""
        now_s = self._own.mono_s()
        missing_s = self._own.wall_s() - now_s - self._ahead_s
        most_s = SLEW * max(0.0, now_s - self._read_at_s)
        self._ahead_s += max(-most_s, min(most_s, missing_s))
        self._read_at_s = now_s
        return now_s + self._ahead_s

    def mono_s(self) -> float:
        """The machine's."""
        return self._own.mono_s()

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


class SystemClock:
    """The machine's own clocks."""

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def mono_s(self) -> float:
        """Seconds since an arbitrary start, never backwards."""
        return time.monotonic()

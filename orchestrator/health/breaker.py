"""A circuit breaker: closed, open, half-open with one probe. Pure: time is passed in.

Source: M. Nygard, Release It!, "Circuit Breaker".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

THRESHOLD = 5
"""Failures in a row that open it."""
RETRY_AFTER_S = 60.0
"""So long nothing is tried; then one probe is."""


@dataclass(slots=True)
class Breaker:
    """One circuit. Every method that may change what is allowed answers whether it did."""

    threshold: int = THRESHOLD
    """Failures in a row that open this one."""
    retry_after_s: float = RETRY_AFTER_S
    failures: int = 0
    opened_at_s: float | None = None
    probe_at_s: float | None = None
    """When the probe was placed. One that is never heard of again (its release was refused) holds for so
    long as the circuit does, and no longer."""
    was_half_open: bool = False

    @property
    def is_probing(self) -> bool:
        """Its one probe is on its way."""
        return self.probe_at_s is not None

    def is_open(self, now_s: float) -> bool:
        """Nothing may be placed now: it failed too often, or its one probe is on its way."""
        return self.left_s(now_s) > 0

    def state(self, now_s: float) -> Literal["closed", "open", "half-open"]:
        """Half-open: one probe may go, or is on its way."""
        if self.opened_at_s is None:
            return "closed"
        return "open" if self.is_open(now_s) and not self.is_probing else "half-open"

    def left_s(self, now_s: float) -> float:
        """Seconds until a probe, or another one, is allowed."""
        since_s = self.opened_at_s if self.probe_at_s is None else self.probe_at_s
        return 0.0 if since_s is None else max(0.0, since_s + self.retry_after_s - now_s)

    def failed(self, now_s: float) -> bool:
        """A call failed in a way that blames this circuit."""
        if self.is_open(now_s) and not self.is_probing:
            return False  # placed before it opened
        self.failures += 1
        is_reopened = self.opened_at_s is not None
        if is_reopened or self.failures >= self.threshold:
            self.opened_at_s, self.probe_at_s, self.was_half_open = now_s, None, False
            return True
        return False

    def placed(self, now_s: float) -> bool:
        """A call was placed: where it is half-open, that is the probe."""
        if self.opened_at_s is None or self.is_open(now_s):
            return False
        self.probe_at_s, self.was_half_open = now_s, False
        return True

    def said_nothing(self) -> bool:
        """A call ended and says neither: cancelled, or given up with its node. Another probe may be tried."""
        changed, self.probe_at_s = self.is_probing, None
        return changed

    def half_opened(self, now_s: float) -> bool:
        """True once, when its time has come."""
        if self.opened_at_s is None or self.was_half_open or self.is_open(now_s):
            return False
        self.was_half_open = True
        return True

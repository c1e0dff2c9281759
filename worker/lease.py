"""The node's own view of its membership: may new work be started now?

Pure, on the monotonic clock. The node counts from when it *sent* the renewal, the orchestrator from
when it *received* it, so the node always stops first. Refuses to renew anything: `membership` does.
"""

from __future__ import annotations

from dataclasses import dataclass

MARGIN_S = 0.25
"""Between the lease check and the tool's start lies one journal commit; and clocks drift a little."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One granted renewal.

    Attributes:
        term: generation of the lease; deliveries of an older one are void.
        ttl_s: how long the grant holds, seconds.
        sent_at_s: monotonic time at which the granted request was sent.
    """

    term: int
    ttl_s: float
    sent_at_s: float

    def left_s(self, now_s: float) -> float:
        """Seconds in which work may still be started; not above the ttl, negative once it is over."""
        return self.sent_at_s + self.ttl_s - MARGIN_S - now_s

    def is_good(self, now_s: float) -> bool:
        """Whether new work may be started."""
        return self.left_s(now_s) > 0

"""For how long a claimed node has been silent, gone, cordoned or told to leave: intervals of this process.

Counted on the monotonic clock from when this process first saw it so, so that neither a clock that jumps
nor time in which nobody led ends a machine.
"""

from __future__ import annotations

from orchestrator.autoscaler.values import NodeClaim
from tasks.clock import Clock
from tasks.node import NodeState

LOST_LIMIT_S = 600.0
"""Its lease lapsed this long ago. A network that was cut comes back; a machine that hangs does not."""
EXPIRED_LIMIT_S = 60.0
"""Of one whose machine should have ended itself: whoever lives has renewed by then, even after an outage of ours."""
LEFT_LIMIT_S = 180.0
"""It left on its own: an upgrade brings it back sooner than this."""


class Silence:
    """Of every claim that is not gone."""

    def __init__(self, clock: Clock, *, lost_limit_s: float = LOST_LIMIT_S, left_limit_s: float = LEFT_LIMIT_S) -> None:
        self._clock, self._lost_limit_s, self._left_limit_s = clock, lost_limit_s, left_limit_s
        self._since: dict[str, tuple[NodeState | None, float]] = {}

    def look(self, claim: NodeClaim, state: NodeState | None) -> None:
        """Its node stands so now. Said at every step."""
        before = self._since.get(claim.id)
        if before is None or before[0] is not state:
            self._since[claim.id] = (state, self._clock.mono_s())

    def too_long(self, claim: NodeClaim, state: NodeState | None) -> str | None:
        """Why its machine is given up; None while it may come back."""
        for_s = self._for_s(claim, state)
        is_expired = claim.expires_at < self._clock.wall_s()
        lost_limit_s = min(self._lost_limit_s, EXPIRED_LIMIT_S) if is_expired else self._lost_limit_s
        if state is NodeState.LOST and for_s > lost_limit_s:
            return f"its node has been silent for {for_s:.0f} s"
        if state is None and for_s > self._left_limit_s:
            return f"its node left {for_s:.0f} s ago"
        return None

    def cordoned_for_s(self, claim: NodeClaim) -> float:
        """As far as this process saw."""
        return self._for_s(claim, NodeState.CORDONED)

    def draining_for_s(self, claim: NodeClaim) -> float:
        """As far as this process saw."""
        return self._for_s(claim, NodeState.DRAINING)

    def forget(self, claim_id: str) -> None:
        """It is gone."""
        self._since.pop(claim_id, None)

    def _for_s(self, claim: NodeClaim, state: NodeState | None) -> float:
        seen, since_s = self._since.get(claim.id, (None, self._clock.mono_s()))
        return self._clock.mono_s() - since_s if seen is state else 0.0

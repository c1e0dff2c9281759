"""What a decision needs to know of the past of one pool: a frozen value, made anew after each decision.

Owns the windows of stabilisation, since when a trigger holds, the last change and the season.
Refuses to read a clock: an Observation's own time moves it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.autoscaler.decide import needs, signs
from orchestrator.autoscaler.decide.season import Season
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import Decision, Observation

GAP_S = 120.0
"""Not having looked for so long breaks a window: nobody knows what was needed meanwhile."""

Need = tuple[float, int]
"""At, and the machines that a pool should have kept then."""


@dataclass(frozen=True, slots=True)
class History:
    """Of one pool.

    Attributes:
        needs: what should have been kept, oldest first, as far back as `settle_s`; a need that a later one
            reaches is left out.
        known_since: from then on there is no gap in `needs`; None before the first whole Observation.
        looked_at: the last whole Observation.
        held_since: by trigger, since when it holds without a break.
        changed_at: when the target last was another one.
        idle_since: since when nothing arrived, waited or ran; None while something does.
    """

    needs: tuple[Need, ...] = ()
    known_since: float | None = None
    looked_at: float | None = None
    held_since: Mapping[str, float] = field(default_factory=dict)
    changed_at: float | None = None
    idle_since: float | None = None
    season: Season = field(default_factory=Season)

    def after(self, seen: Observation, decision: Decision, policy: ScalePolicy) -> History:
        """The history that the next decision has. `decision` is the one that was made of `seen`, after `fit`."""
        at = seen.at
        if (present := self.as_of(at)) is not self:
            return present.after(seen, decision, policy)
        held = {name: self.held_since.get(name, at) for name in signs.holding(seen, policy)}
        changed_at = at if decision.target != decision.before else self.changed_at
        if seen.missing:
            return History(self.needs, self.known_since, self.looked_at, held, changed_at, None, self.season)
        keep = needs.of_pool(seen, policy, self.season).keep
        rates = {name: lane.arrivals_per_s for name, lane in seen.lanes.items()}
        return History(
            needs=(
                *((then, need) for then, need in self.needs if need > keep and then > at - policy.settle_s),
                (at, keep),
            ),
            known_since=at if self.has_gap(at) else self.known_since,
            looked_at=at,
            held_since=held,
            changed_at=changed_at,
            idle_since=(at if self.idle_since is None else self.idle_since) if signs.is_idle(seen) else None,
            season=self.season.learn(at, rates) if policy.use_season else self.season,
        )

    def as_of(self, at: float) -> History:
        """Without what is yet to come: where the clock was set back, windows begin anew and a change was just now.

        Else a pool would be kept as large, or a cooldown last, until the clock is where it was.
        """
        last = max(self.looked_at or at, self.changed_at or at)
        if last <= at:
            return self
        return History(changed_at=None if self.changed_at is None else min(self.changed_at, at), season=self.season)

    def has_gap(self, at: float) -> bool:
        """Too long ago was the pool last seen whole."""
        return self.looked_at is None or at - self.looked_at > GAP_S

    def settled_s(self, at: float) -> float:
        """For how long every need up to now is known."""
        return 0.0 if self.known_since is None or self.has_gap(at) else at - self.known_since

    def kept_within(self, at: float, settle_s: float) -> int:
        """The most machines that should have been kept within so long."""
        return max((need for then, need in self.needs if then > at - settle_s), default=0)

    def held_s(self, trigger: str, at: float) -> float:
        """For how long a trigger that holds now has held."""
        return at - self.held_since.get(trigger, at)

    def idle_s(self, at: float) -> float:
        """For how long nothing happened, as of the last look."""
        return 0.0 if self.idle_since is None else at - self.idle_since

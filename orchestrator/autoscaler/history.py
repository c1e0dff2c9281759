"""What a decision needs to know of the past of one pool: a frozen value, made anew after each decision.

Owns the windows of stabilisation, since when a trigger holds, the last change and the season.
Refuses to read a clock: an Observation's own time moves it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.season import Season
from orchestrator.autoscaler.values import Decision, Observation

Need = tuple[float, int]
"""At, and the machines that a pool should have kept then."""


@dataclass(frozen=True, slots=True)
class History:
    """Of one pool.

    Attributes:
        needs: what should have been kept, oldest first, as far back as `settle_s`; a need that a later one
            exceeds is left out.
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
        raise NotImplementedError

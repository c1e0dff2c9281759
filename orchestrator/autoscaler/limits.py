"""What no strategy may pass: min, max, quota and money, of one pool and of all pools together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.values import Decision, Observation


def fit(
    decisions: Sequence[Decision],
    observations: Mapping[str, Observation],
    policies: Mapping[str, ScalePolicy],
    limits: FleetLimits,
) -> tuple[Decision, ...]:
    """Decisions of all pools, cut to the fleet's money and machines by priority. In the order given.

    Args:
        decisions: at most one per pool.
        observations: by pool; of every pool that has machines, also where nothing was decided.
        policies: by pool.
        limits: `is_dry` marks every decision.
    """
    raise NotImplementedError

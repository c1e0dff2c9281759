"""What a policy would have decided of recorded Observations."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.autoscaler.history import History
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.values import Decision, Observation


def replay(
    observations: Iterable[Observation], policy: ScalePolicy, limits: FleetLimits, history: History | None = None
) -> list[Decision]:
    """One decision per Observation of one pool, oldest first. Nothing is done: each sees the machines recorded."""
    raise NotImplementedError

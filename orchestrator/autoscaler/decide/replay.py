"""What a policy would have decided of recorded Observations."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.decide.limits import fit
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.values import Decision, Observation


def replay(
    observations: Iterable[Observation], policy: ScalePolicy, limits: FleetLimits, history: History | None = None
) -> list[Decision]:
    """One decision per Observation of one pool, oldest first. Nothing is done: each sees the machines recorded."""
    past = History() if history is None else history
    decisions = []
    for seen in observations:
        (decision,) = fit([decide(seen, policy, past)], {seen.pool: seen}, {seen.pool: policy}, limits)
        past = past.after(seen, decision, policy)
        decisions.append(decision)
    return decisions

"""One pool's decision: what was seen, what its operator decided and what went before, to a target with reasons."""

from __future__ import annotations

from orchestrator.autoscaler.history import History
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import Decision, Observation, Override

__all__ = ["History", "decide"]


def decide(seen: Observation, policy: ScalePolicy, history: History, override: Override | None = None) -> Decision:
    """The machines that this pool should have, which to let go, and why."""
    raise NotImplementedError

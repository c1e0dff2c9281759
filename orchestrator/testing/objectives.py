"""Objectives: with nothing told to them, or told of all that happens in a core."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from orchestrator.happenings import Happening, Happenings
from orchestrator.observability.calls import LiveCalls
from orchestrator.observability.objectives import Objectives
from tasks.clock import Clock
from tasks.node import LEASE_TTL_S


def objectives_of(clock: Clock) -> Objectives:
    """With a registry of their own."""
    return Objectives(CollectorRegistry(), LiveCalls(clock), clock, lease_ttl_s=LEASE_TTL_S)


def measuring(happenings: Happenings, clock: Clock) -> Objectives:
    """The same, told of everything."""
    calls = LiveCalls(clock)
    objectives = Objectives(CollectorRegistry(), calls, clock, lease_ttl_s=LEASE_TTL_S)

    def hear(happening: Happening) -> None:
        calls.begin(happening)
        objectives.hear(happening)
        calls.end(happening)

    happenings.listen(hear)
    return objectives

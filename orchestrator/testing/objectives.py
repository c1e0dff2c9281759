"""Objectives that nothing tells of anything."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from orchestrator.observability.calls import LiveCalls
from orchestrator.observability.objectives import Objectives
from tasks.clock import Clock
from tasks.node import LEASE_TTL_S


def objectives_of(clock: Clock) -> Objectives:
    """With a registry of their own."""
    return Objectives(CollectorRegistry(), LiveCalls(clock), clock, lease_ttl_s=LEASE_TTL_S)

"""A Pool: nodes of one shape, the unit of routing and of scaling."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tasks.invocation import Lane


class Strategy(StrEnum):
    """How a pool spreads what has no warm node."""

    LEAST_CONNECTIONS = "least_connections"
    ROUND_ROBIN = "round_robin"
    WEIGHTED_ROUND_ROBIN = "weighted_round_robin"
    RESOURCE = "resource"
    AFFINITY = "affinity"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """What the operator decided for one pool.

    Attributes:
        name: the pool.
        strategy: how calls without a warm node are spread.
        affinity_ttl_s: how long a project stays bound to its node after its last call.
        warm_wait_tools_s: how long a `tools` call waits for a full warm node before it spills.
        warm_wait_agents_s: the same for `agents`.
        prefetch: deliveries a node may hold beyond its free slots, per lane: hides one round trip.
        bound: in `affinity`, a node may hold this many times the mean load (bounded load).
        is_paused: releases nothing while true.
    """

    name: str
    strategy: Strategy = Strategy.LEAST_CONNECTIONS
    affinity_ttl_s: float = 300.0
    warm_wait_tools_s: float = 2.0
    warm_wait_agents_s: float = 60.0
    prefetch: int = 2
    bound: float = 1.25
    is_paused: bool = False

    def warm_wait_s(self, lane: Lane) -> float:
        """Seconds a call of this lane waits for its warm node."""
        return self.warm_wait_tools_s if lane is Lane.TOOLS else self.warm_wait_agents_s

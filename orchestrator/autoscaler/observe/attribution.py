"""Which pool a waiting call is the demand of. Pure.

Exactly one pool buys machines for a call, or two would buy twice for the same ones. Which one is fixed
as long as the fleet is: by priority, then by name, and not by who has least to do, because that changes
with every machine that comes, and demand that moves between pools looks like a burst in one and a lull
in the other. Only a pool that has all the machines it may have passes its waiting calls on to the next.
What was released is the demand of the pool that runs it, wherever it was counted while it waited.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from orchestrator.autoscaler.scale_policy import ScalePolicy
from tasks.invocation import Lane


class Shape(Protocol):
    """What calls that are placed alike have in common."""

    @property
    def lane(self) -> Lane: ...
    @property
    def regions(self) -> tuple[str, ...]: ...


class Demand(Protocol):
    """Due calls of one shape that wait. `orchestrator.dispatch.tally.Demand` satisfies it."""

    @property
    def shape(self) -> Shape: ...
    @property
    def calls(self) -> int: ...
    @property
    def oldest_due(self) -> float: ...
    @property
    def by_second(self) -> Mapping[int, int]: ...
    @property
    def pools(self) -> tuple[str, ...]:
        """In which some joined node could run them."""
        ...

    @property
    def up(self) -> tuple[str, ...]:
        """Those of them in which such a node is not lost."""
        ...

    @property
    def growing(self) -> tuple[str, ...]:
        """In which a machine that may be ordered could."""
        ...


def owner(demand: Demand, policies: Mapping[str, ScalePolicy], full: Collection[str]) -> str | None:
    """The pool that sizes itself for these calls; None where no scaled pool could run them.

    Args:
        demand: of calls that wait.
        policies: of scaled pools.
        full: pools that have all the machines they may have.
    """
    able = {pool for pool in (*demand.pools, *demand.growing) if pool in policies}
    return min(able, key=lambda pool: (pool in full, -policies[pool].priority, pool), default=None)

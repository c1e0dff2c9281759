"""The autoscaler's sensors on the parts that know: roster, open attempts, dispatcher, claims.

Between domains that do not know each other. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from orchestrator.autoscaler.observe.sensors import Claims, Sensors
from orchestrator.autoscaler.values import NodeClaim
from orchestrator.core import Core
from orchestrator.dispatch.tally import Demand
from orchestrator.ledger.values import Outstanding
from orchestrator.registry.member import Member
from tasks.invocation import Lane


class CoreFleet:
    """Satisfies what the sensors need of the fleet."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def nodes(self) -> Iterable[Member]:
        """Every node that joined and did not leave."""
        return self._core.roster.members()

    def attempts(self) -> Sequence[Outstanding]:
        """Every open attempt."""
        return self._core.attempts.all()

    def demand(self) -> Sequence[Demand]:
        """What waits for room, by shape."""
        return self._core.dispatcher.demand()

    def slots_of(self, pool: str) -> Mapping[Lane, int] | None:
        """Of one machine; None of a pool that no node was ever seen of."""
        shape = self._core.roster.shapes.of(pool)
        return None if shape is None else shape.slots


def sensors_of(core: Core, claims: Claims, *, has_notice: Callable[[NodeClaim], bool], renew_every_s: float) -> Sensors:
    """The sensors, listening. To be told `begin` when this process begins to lead."""
    sensors = Sensors(
        policies=core.policies.scaled,
        fleet=CoreFleet(core),
        claims=claims,
        leads=core.proof.holds,
        broker_down=core.dispatcher.broker_down,
        renew_every_s=renew_every_s,
        clock=core.stores.clock,
        has_notice=has_notice,
    )
    core.happenings.listen(sensors.hear)
    return sensors

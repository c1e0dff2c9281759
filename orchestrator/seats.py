"""The fleet as `route` sees it: who is a member, what it offers, what is passed by for now.

Between registry, health and dispatch, which do not know each other.
"""

from __future__ import annotations

from orchestrator.autoscaler.act.ladder import allowed
from orchestrator.dispatch.view import FleetView, Seat
from orchestrator.health.circuits import Circuits
from orchestrator.pools import Policies
from orchestrator.registry.roster import Roster
from orchestrator.registry.shapes import ON_DEMAND, SPOT, Made, Shapes
from tasks.clock import Clock

ASKED = "the autoscaler is asked for one"
DRY = "the autoscaler only says what it would do ([scale] is_dry), so start one"


def view_of(
    roster: Roster, policies: Policies, paused: frozenset[tuple[str, str]], circuits: Circuits, clock: Clock
) -> FleetView:
    """The fleet as `route` sees it."""
    now_s = clock.mono_s()
    seats = {seat.node: seat for seat in seats_of(roster, circuits, now_s)}
    return FleetView(
        roster.version,
        seats,
        policies.by_name,
        paused,
        regions=policies.regions,
        growth=_growth(roster.shapes),
        asked=DRY if policies.limits.is_dry else ASKED,
    )


def seats_of(roster: Roster, circuits: Circuits, now_s: float) -> list[Seat]:
    """Every member's; `now_s` of the monotonic clock."""
    return [
        Seat(
            node=member.name,
            pool=member.offer.pool,
            capabilities=member.capabilities,
            tools=frozenset(member.tools),
            slots=dict(member.offer.slots),
            weight=member.offer.weight,
            cpu=member.load.cpu,
            memory=member.load.memory,
            is_open=member.is_open(now_s),
            state=member.state,
            circuits=circuits.open_at(member.name, member.incarnation),
            unhealthy=member.unhealthy(),
            mirrors=member.offer.mirrors,
            location=member.offer.location,
        )
        for member in roster.members()
    ]


def made_of(policies: Policies) -> dict[str, tuple[Made, ...]]:
    """The kinds of machines that scaled pools can order."""
    return {
        pool: tuple(
            dict.fromkeys(
                Made(rung.region, frozenset({SPOT if rung.is_spot else ON_DEMAND})) for rung in allowed(policy)
            )
        )
        for pool, policy in policies.scaled.items()
    }


def _growth(shapes: Shapes) -> tuple[Seat, ...]:
    """Nodes that the autoscaler could make, one per kind of machine."""
    return tuple(
        Seat(
            node=f"a new machine of {pool}",
            pool=pool,
            capabilities=shape.capabilities | made.capabilities,
            tools=frozenset(tool.name for tool in shape.tools),
            slots=shape.slots,
            location=made.location,
        )
        for pool, shape in shapes.all().items()
        for made in shapes.made[pool]
    )

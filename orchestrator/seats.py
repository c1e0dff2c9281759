"""The fleet as `route` sees it: who is a member, what it offers, what is passed by for now.

Between registry, health and dispatch, which do not know each other.
"""

from __future__ import annotations

from orchestrator.dispatch.view import FleetView, Seat
from orchestrator.health.circuits import Circuits
from orchestrator.pools import Policies
from orchestrator.registry.roster import Roster
from tasks.clock import Clock


def view_of(
    roster: Roster, policies: Policies, paused: frozenset[tuple[str, str]], circuits: Circuits, clock: Clock
) -> FleetView:
    """The fleet as `route` sees it."""
    now_s = clock.mono_s()
    seats = {
        member.name: Seat(
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
        )
        for member in roster.members()
    }
    return FleetView(roster.version, seats, policies.by_name, paused)

"""Builders for tests and benchmarks of dispatch: seats, calls, an occupancy that counts, one pass.

Owns no behaviour of its own: `release_all` is the dispatcher's inner loop without ledger and broker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.dispatch.affinity import Affinity
from orchestrator.dispatch.backlog import Backlog
from orchestrator.dispatch.route import Decision, route
from orchestrator.dispatch.spread import Spread
from orchestrator.dispatch.view import FleetView, Seat
from orchestrator.ledger.values import Waiting
from tasks.invocation import PRIORITY_DEFAULT, Lane
from tasks.placement import Placement
from tasks.pool import PoolPolicy

TOOL = "git.git_log"
Changed = Any
"""A value for any field of the thing that is built."""


def seat(node: str, pool: str = "east", *, slots: int = 2, agents: int = 0, **changes: Changed) -> Seat:
    """A node with one tool; any field of `Seat` can be given."""
    fields: dict[str, Any] = {
        "capabilities": frozenset({"git"}),
        "tools": frozenset({TOOL}),
        "slots": {Lane.TOOLS: slots, Lane.AGENTS: agents},
        **changes,
    }
    return Seat(node=node, pool=pool, **fields)


def fleet_of(
    seats: Iterable[Seat],
    *policies: PoolPolicy,
    paused: Iterable[tuple[str, str]] = (),
    version: int = 1,
) -> FleetView:
    """A fleet of these seats."""
    return FleetView(version, {seat.node: seat for seat in seats}, {p.name: p for p in policies}, frozenset(paused))


def waiting(call_id: str, project: str | None = None, **changes: Changed) -> Waiting:
    """A waiting call; any field of `Waiting` can be given."""
    fields: dict[str, Any] = {
        "tool": TOOL,
        "tenant": "default",
        "lane": Lane.TOOLS,
        "requires": frozenset(),
        "pool": None,
        "priority": PRIORITY_DEFAULT,
        "accepted_at": 0.0,
        "not_before": None,
        "expires_at": None,
        "fence": 0,
        "tries": 0,
        **changes,
    }
    return Waiting(id=call_id, project=project, **fields)


class Counted:
    """An `Occupancy` that counts placements."""

    def __init__(self, held: Mapping[tuple[str, Lane], int] | None = None) -> None:
        self.by_node: dict[Lane, Counter[str]] = {lane: Counter() for lane in Lane}
        self.by_pool: Counter[tuple[str, Lane]] = Counter()
        for (node, lane), number in (held or {}).items():
            self.by_node[lane][node] = number

    def held(self, node: str, lane: Lane) -> int:
        """Placed on the node and not given back."""
        return self.by_node[lane].get(node, 0)

    def held_by_node(self, lane: Lane) -> Mapping[str, int]:
        """The same for every node."""
        return self.by_node[lane]

    def held_in_pool(self, pool: str, lane: Lane) -> int:
        """Placed on the pool and not given back."""
        return self.by_pool.get((pool, lane), 0)

    def total(self) -> int:
        """Everything placed and not given back."""
        return sum(counter.total() for counter in self.by_node.values()) + self.by_pool.total()

    def add(self, placement: Placement, number: int = 1) -> None:
        """A placement took; with -1, it was given back."""
        if placement.node is None:
            self.by_pool[placement.pool, placement.lane] += number
        else:
            self.by_node[placement.lane][placement.node] += number


@dataclass(slots=True)
class Desk:
    """A dispatcher without ledger and broker. Both clocks show `now_s`."""

    fleet: FleetView
    backlog: Backlog
    occupancy: Counted = field(default_factory=Counted)
    affinity: Affinity = field(default_factory=Affinity)
    spread: Spread = field(default_factory=Spread)
    now_s: float = 0.0
    asked: int = 0
    """Calls of `route` so far."""

    def decide(self, call: Waiting) -> Decision:
        """Where the call would go now."""
        self.asked += 1
        return route(
            call,
            self.fleet,
            self.occupancy,
            warm_node=self.affinity.node_of(call.project, self.now_s),
            waited_s=self.now_s - max(call.accepted_at, call.not_before or 0.0),
            spread=self.spread,
            now_s=self.now_s,
        )

    def release_all(
        self, limit: int | None = None, seen: Callable[[Waiting, Decision], None] = lambda _call, _decision: None
    ) -> list[tuple[Waiting, Placement]]:
        """One pass: everything that can be released, in order, up to `limit`."""
        released: list[tuple[Waiting, Placement]] = []
        self.backlog.due(self.now_s)
        while (limit is None or len(released) < limit) and (call := self.backlog.next(self.now_s)) is not None:
            decision = self.decide(call)
            seen(call, decision)
            if isinstance(decision, Placement):
                self._place(call, decision)
                released.append((call, decision))
            else:
                self.backlog.park(call.id, decision)
        return released

    def fill(self, project: str | None, number: int, **changes: Changed) -> None:
        """So many calls of one project begin to wait, the first one oldest."""
        stem = f"{project}-{changes.get('tool', '')}-{changes.get('priority', '')}"
        for index in range(number):
            call = waiting(f"{stem}-{index:05}", project, accepted_at=index * 1e-6, **changes)
            self.backlog.add(call, self.now_s)

    def releases_until(self, wanted: str, limit: int) -> int:
        """Releases up to and with that call, attempts ending one by one, oldest first."""
        running: list[Placement] = []
        for number in range(1, limit + 1):
            while not (released := self.release_all(limit=1)):
                self.give_back(running.pop(0))
            running.append(released[0][1])
            if released[0][0].id == wanted:
                return number
        raise AssertionError(f"{wanted} was not among the first {limit} releases")

    def give_back(self, placement: Placement) -> None:
        """The attempt was settled."""
        self.occupancy.add(placement, -1)
        nodes = [placement.node] if placement.node else [s.node for s in self.fleet.seats.values()]
        for node in nodes:
            self.backlog.credit(node, placement.lane)

    def change(self, fleet: FleetView) -> None:
        """A new version of the fleet."""
        self.fleet = fleet
        self.backlog.fleet_changed(fleet)

    def _place(self, call: Waiting, placement: Placement) -> None:
        self.backlog.take(call.id)
        self.occupancy.add(placement)
        self.spread.placed(placement, self.fleet)
        if call.project is not None and placement.node is not None:
            ttl_s = self.fleet.policy(placement.pool).affinity_ttl_s
            self.affinity.placed(call.project, placement.node, now_wall_s=self.now_s, ttl_s=ttl_s, fleet=self.fleet)


def desk_of(fleet: FleetView) -> Desk:
    """A dispatcher with nothing waiting."""
    return Desk(fleet, Backlog(fleet))

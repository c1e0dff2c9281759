"""How a pool spreads calls that have no warm node: one small pure choice per strategy.

Owns the turn that round robin remembers. Refuses to know projects' bindings and to place where
there is no room: `route` asks with the rooms that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from orchestrator.dispatch.view import Bench, FleetView, Occupancy, Stand
from tasks.invocation import Lane
from tasks.placement import Placement
from tasks.pool import Strategy

Room = tuple[Stand, int]
"""A stand that may take one more, and what it holds now."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The stand that takes the call, and why."""

    stand: Stand
    reason: str


@dataclass(slots=True)
class _Turn:
    clock: float = 0.0
    passed: dict[str, float] = field(default_factory=dict)
    version: int = -1

    def of(self, node: str, stride: float) -> float:
        # Whoever was full or closed catches up by one stride at most, and not with a burst.
        return max(self.passed.get(node, self.clock), self.clock - stride)


class Spread:
    """Whose turn it is, per pool and lane. Only `placed` changes it, so that `route` stays pure.

    Stride scheduling: a node's turn moves on by 1 / weight with every call it gets, the least turn
    is next. With equal weights that is round robin, otherwise a smooth weighted one; a node that
    joins begins at the present turn.

    Source: Waldspurger and Weihl, Stride Scheduling, 1995.
    """

    def __init__(self) -> None:
        self._turns: dict[tuple[str, Lane], _Turn] = {}

    def turns(self, pool: str, lane: Lane) -> Mapping[str, float]:
        """Turns by node as they stand, for tie-breaks."""
        turn = self._turns.get((pool, lane))
        return {} if turn is None else turn.passed

    def turns_of(self, rooms: Sequence[Room], lane: Lane, strides: Sequence[float]) -> list[float]:
        """The turn of each room's stand, never more than one stride before the present."""
        turn = self._turns.get((rooms[0][0].pool, lane))
        if turn is None:
            return [0.0] * len(rooms)
        return [turn.of(room[0].node, stride) for room, stride in zip(rooms, strides, strict=True)]

    def placed(self, placement: Placement, fleet: FleetView) -> None:
        """A call was placed: its node's turn moves on."""
        node, pool = placement.node, placement.pool
        seat = None if node is None else fleet.seats.get(node)
        if node is None or seat is None:
            return
        turn = self._turns.setdefault((pool, placement.lane), _Turn())
        if turn.version != fleet.version:
            turn.version = fleet.version
            self._greet(turn, pool, fleet)
        is_weighted = fleet.policy(pool).strategy is Strategy.WEIGHTED_ROUND_ROBIN
        stride = 1.0 / seat.weight if is_weighted else 1.0
        start = turn.of(node, stride)
        turn.clock = max(turn.clock, start)
        turn.passed[node] = start + stride

    @staticmethod
    def _greet(turn: _Turn, pool: str, fleet: FleetView) -> None:
        """Newcomers begin at the present; those that left the fleet are forgotten."""
        mates = [node for node, seat in fleet.seats.items() if seat.pool == pool]
        turn.passed = {node: turn.passed.get(node, turn.clock) for node in mates}


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to a strategy. `rooms` is never empty: those with a free slot, else those to prefetch on."""

    bench: Bench
    rooms: Sequence[Room]
    lane: Lane
    key: str
    """What rendezvous hashing hashes: the project, or the tool where there is none."""
    fleet: FleetView
    occupancy: Occupancy
    spread: Spread


def choose(ask: Ask, *, is_project: bool) -> Choice:
    """The pool's strategy decides; a project without a warm node gets its home where that is balanced."""
    strategy = ask.bench.policy.strategy
    if strategy is Strategy.AFFINITY or (is_project and strategy in _HOMELY):
        return _home(ask)
    return _CHOICES[strategy](ask)


def _least_connections(ask: Ask) -> Choice:
    tied = [room for room in ask.rooms if not room[1]]
    if not tied:
        shares = [held / stand.slots for stand, held in ask.rooms]
        least = min(shares)
        tied = [room for room, share in zip(ask.rooms, shares, strict=True) if share == least]
    stand, held = tied[0] if len(tied) == 1 else _heaviest_then_longest_ago(ask, tied)
    return Choice(stand, f"least connections: {_used(stand, held)}, the least of {_nodes(len(ask.rooms))}")


def _heaviest_then_longest_ago(ask: Ask, tied: Sequence[Room]) -> Room:
    if not ask.bench.is_even:
        weight = max([stand.weight for stand, _ in tied])
        tied = [room for room in tied if room[0].weight == weight]
    turn_on = ask.spread.turns(ask.bench.policy.name, ask.lane).get
    turns = [turn_on(stand.node, 0.0) for stand, _ in tied]
    return tied[turns.index(min(turns))]


def _round_robin(ask: Ask) -> Choice:
    turns = ask.spread.turns_of(ask.rooms, ask.lane, [1.0] * len(ask.rooms))
    stand, held = ask.rooms[turns.index(min(turns))]
    return Choice(stand, f"round robin: the turn of {_used(stand, held)}, {_nodes(len(ask.rooms))} with room")


def _weighted_round_robin(ask: Ask) -> Choice:
    strides = [1.0 / stand.weight for stand, _ in ask.rooms]
    turns = ask.spread.turns_of(ask.rooms, ask.lane, strides)
    order = list(zip(turns, strides, strict=True))
    stand, held = ask.rooms[order.index(min(order))]
    return Choice(stand, f"weighted round robin: the turn of {_used(stand, held)}, weight {stand.weight:g}")


def _resource(ask: Ask) -> Choice:
    seats = ask.fleet.seats

    def strain(room: Room) -> float:
        # Reports are seconds old; what was placed since then shows only in the held ones.
        seat = seats[room[0].node]
        return max(seat.cpu, seat.memory) + room[1] / room[0].slots

    stand, held = min(ask.rooms, key=strain)
    seat = seats[stand.node]
    load = f"cpu {seat.cpu:.0%}, memory {seat.memory:.0%}"
    return Choice(stand, f"resource: {_used(stand, held)}, {load}, the least of {_nodes(len(ask.rooms))}")


def _home(ask: Ask) -> Choice:
    """Rendezvous hashing with bounded load: nobody over `bound` times the mean takes a new key.

    Source: Mirrokni, Thorup and Zadimoghaddam, Consistent Hashing with Bounded Loads, 2018.
    """
    held_on = ask.occupancy.held_by_node(ask.lane).get
    total = 1 + sum([held_on(stand.node, 0) for stand in ask.bench.stands])
    share = ask.bench.policy.bound * total / ask.bench.slots
    stand_of, allowed = ask.bench.stand_of, {stand.node for stand, _ in ask.rooms}
    passed_over = 0
    for node in ask.fleet.rank(ask.key):
        if node not in allowed:
            continue
        stand, held = stand_of[node], held_on(node, 0)
        limit = ceil(share * stand.slots)
        if held < limit:
            return Choice(stand, _home_reason(ask, stand, held, limit, passed_over))
        passed_over += 1
    return _least_connections(ask)


def _home_reason(ask: Ask, stand: Stand, held: int, limit: int, passed_over: int) -> str:
    said = f"home: {_used(stand, held)} is home to {ask.key} by rendezvous hashing, fair share {limit}"
    return f"{said}; {_nodes(passed_over)} before it hold their share" if passed_over else said


def _used(stand: Stand, held: int) -> str:
    return f"node {stand.node} ({held} of {stand.slots} slots used)"


def _nodes(number: int) -> str:
    return "1 node" if number == 1 else f"{number} nodes"


_HOMELY = frozenset({Strategy.LEAST_CONNECTIONS, Strategy.LATE})
"""Strategies under which a cold project goes home: its files may still be there, and restarts agree."""

_CHOICES: dict[Strategy, Callable[[Ask], Choice]] = {
    Strategy.LEAST_CONNECTIONS: _least_connections,
    Strategy.ROUND_ROBIN: _round_robin,
    Strategy.WEIGHTED_ROUND_ROBIN: _weighted_round_robin,
    Strategy.RESOURCE: _resource,
    # Addressed after all, because not every node of the pool can run it.
    Strategy.LATE: _least_connections,
}

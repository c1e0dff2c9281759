"""Where a call goes, and why: capability → pool → affinity → strategy → queue. Pure.

Refuses to remember and to send. Says `Hold` without a node only if no node that could run this
shape has room, whatever the project: `Backlog` parks the whole shape on that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.dispatch.refusal import closed_why, never, not_now
from orchestrator.dispatch.spread import Ask, Choice, Room, Spread, choose
from orchestrator.dispatch.view import Bench, FleetView, Occupancy, Shape, Stand, shape_of
from orchestrator.ledger.values import Waiting
from tasks.invocation import Lane
from tasks.placement import Hold, Placement, Refusal
from tasks.queues import node_queue, pool_queue

Decision = Placement | Hold | Refusal


@dataclass(frozen=True, slots=True)
class _Opening:
    """A pool that has room: its stands with a free slot, or if there is none, those to prefetch on."""

    bench: Bench
    rooms: Sequence[Room]
    credit: int | None
    """Free slots of the whole pool under late binding, else None."""


@dataclass(frozen=True, slots=True)
class _Cold:
    """No warm node to use; `reason` says what became of the one there was, if any."""

    reason: str | None


def route(
    call: Waiting,
    fleet: FleetView,
    occupancy: Occupancy,
    *,
    warm_node: str | None,
    waited_s: float,
    spread: Spread,
    now_s: float,
) -> Decision:
    """Decide one call.

    Args:
        call: what waits.
        fleet: nodes, pools and pauses.
        occupancy: what is outstanding, calls placed a moment ago counted.
        warm_node: the node the call's project is bound to.
        waited_s: seconds since the call could first have been released.
        spread: whose turn it is; tell it of the placement with `Spread.placed`.
        now_s: monotonic clock, for `Hold.until_s`.
    """
    if fleet.is_project_paused(call.project):
        return Hold((f"project {call.project} is paused",))
    shape = shape_of(call, fleet.regions)
    able = fleet.capable(shape)
    if not able:
        return Refusal(never(shape, fleet, call.project))
    benches = fleet.benches(shape)
    warm = _warm(call, fleet, occupancy, benches=benches, warm_node=warm_node, waited_s=waited_s, now_s=now_s)
    if not isinstance(warm, _Cold):
        return warm
    openings = [opening for bench in benches if (opening := _opening(bench, call.lane, occupancy)) is not None]
    if not openings:
        return Hold(_full(benches, call.lane, occupancy) if benches else not_now(shape, fleet))
    said = _able_reasons(shape, able, fleet, call.project)
    if warm.reason is not None:
        said.append(warm.reason)
    return _cold(call, fleet, occupancy, openings=openings, spread=spread, said=said)


def _warm(
    call: Waiting,
    fleet: FleetView,
    occupancy: Occupancy,
    *,
    benches: Sequence[Bench],
    warm_node: str | None,
    waited_s: float,
    now_s: float,
) -> Placement | Hold | _Cold:
    if warm_node is None:
        return _Cold(None)
    stand, bench = _stand_of(warm_node, benches)
    if stand is None or bench is None:
        return _Cold(_cooled(call, warm_node, fleet))
    if bench.is_late:
        return _Cold(f"affinity: node {warm_node} holds project {call.project}, but pool {stand.pool} binds late")
    held = occupancy.held(warm_node, call.lane)
    holds = f"affinity: node {warm_node} holds project {call.project} ({held} of {stand.slots} slots used)"
    if held < stand.limit:
        return _addressed(stand, call.lane, (holds,))
    patience_s = bench.policy.warm_wait_s(call.lane)
    left_s = patience_s - waited_s
    if left_s > 0:
        return Hold((holds, f"waits for it at most {left_s:.1f} s more"), warm_node, now_s + left_s)
    return _Cold(f"{holds}, and the call waited {waited_s:.1f} s of {patience_s:g} s for it: spilled")


def _stand_of(node: str, benches: Sequence[Bench]) -> tuple[Stand, Bench] | tuple[None, None]:
    for bench in benches:
        stand = bench.stand_of.get(node)
        if stand is not None:
            return stand, bench
    return None, None


def _cooled(call: Waiting, warm_node: str, fleet: FleetView) -> str:
    seat = fleet.seats.get(warm_node)
    if seat is None:
        return f"affinity: node {warm_node}, which held project {call.project}, is no longer in the fleet"
    shape = shape_of(call, fleet.regions)
    lacks = seat.lacks(shape)
    if lacks:
        return f"affinity: node {warm_node} holds project {call.project}, but lacks {', '.join(lacks)}"
    why = closed_why(seat, shape, fleet) or "not to be had"
    return f"affinity: node {warm_node} holds project {call.project}, but is {why}: no longer warm"


def _opening(bench: Bench, lane: Lane, occupancy: Occupancy) -> _Opening | None:
    held_on = occupancy.held_by_node(lane).get
    credit = None
    if bench.policy.strategy == "late":
        taken = sum([held_on(stand.node, 0) for stand in bench.crew])
        credit = bench.crew_slots - taken - occupancy.held_in_pool(bench.policy.name, lane)
        if credit <= 0:
            return None
    rooms = [(stand, held) for stand in bench.stands if (held := held_on(stand.node, 0)) < stand.slots]
    if not rooms:
        rooms = [(stand, held) for stand in bench.stands if (held := held_on(stand.node, 0)) < stand.limit]
    return _Opening(bench, rooms, credit) if rooms else None


def _cold(
    call: Waiting,
    fleet: FleetView,
    occupancy: Occupancy,
    *,
    openings: Sequence[_Opening],
    spread: Spread,
    said: list[str],
) -> Placement:
    openings, near = _near(call, openings, fleet)
    opening, reason = _pool(call, openings, fleet)
    said.append(reason)
    if near is not None:
        said.append(near)
    bench = opening.bench
    pool = bench.policy.name
    if bench.is_late:
        said.append(f"late binding: {opening.credit} free slots in the pool, the first free node takes it")
        return Placement(pool, None, call.lane, pool_queue(pool, call.lane), tuple(said))
    if opening.credit is not None:
        said.append(f"addressed: {len(bench.stands)} of {len(bench.crew)} nodes of late-binding pool {pool} can run it")
    ask = Ask(bench, opening.rooms, call.lane, call.project or call.tool, fleet, occupancy, spread)
    choice: Choice = choose(ask, is_project=call.project is not None)
    said.append(choice.reason)
    return _addressed(choice.stand, call.lane, tuple(said))


def _near(call: Waiting, openings: Sequence[_Opening], fleet: FleetView) -> tuple[Sequence[_Opening], str | None]:
    """Where an agent finds the project's files, if a slot is free there: a clone of a warm mirror takes a second."""
    if call.project is None or call.lane is not Lane.AGENTS:
        return openings, None
    warm = fleet.mirroring(call.tool, call.project)
    near = []
    for opening in openings:
        rooms = [(stand, held) for stand, held in opening.rooms if stand.node in warm and held < stand.slots]
        if rooms and not opening.bench.is_late:
            near.append(replace(opening, rooms=rooms))
    if not near:
        return openings, None
    count = sum(len(opening.rooms) for opening in openings)
    found = sum(len(opening.rooms) for opening in near)
    return (
        near,
        f"mirror: {found} of {count} nodes with room have project {call.project}'s files (score 1, the others 0)",
    )


def _pool(call: Waiting, openings: Sequence[_Opening], fleet: FleetView) -> tuple[_Opening, str]:
    if call.pool is not None:
        return openings[0], f"pool: {call.pool}, as asked"
    if len(openings) == 1:
        return openings[0], f"pool: {openings[0].bench.policy.name}, the only one with room"
    if call.project is not None:
        return _pool_of_home(call.project, openings, fleet)
    counted = [(_free_slots(opening), _credit(opening), opening) for opening in openings]
    free, credit, best = max(counted, key=lambda row: (row[0], row[1]))
    room = f"{free} free slots" if free else f"room to prefetch {credit}"
    return best, f"pool: {best.bench.policy.name} has {room}, the most of {len(openings)} pools"


def _pool_of_home(project: str, openings: Sequence[_Opening], fleet: FleetView) -> tuple[_Opening, str]:
    # By the project's own ranking of nodes, so that load and new nodes do not move it between pools.
    with_free = [opening for opening in openings if _free_slots(opening) > 0] or openings
    pool_of = {room[0].node: opening for opening in with_free for room in opening.rooms}
    for node in fleet.rank(project):
        opening = pool_of.get(node)
        if opening is not None:
            return opening, f"pool: {opening.bench.policy.name}, where project {project} has its home"
    raise AssertionError("every room's node is a seat, and every seat is ranked")


def _free_slots(opening: _Opening) -> int:
    free = sum([max(0, stand.slots - held) for stand, held in opening.rooms])
    return free if opening.credit is None else min(free, opening.credit)


def _credit(opening: _Opening) -> int:
    if opening.credit is not None:
        return opening.credit
    return sum([stand.limit - held for stand, held in opening.rooms])


def _full(benches: Sequence[Bench], lane: Lane, occupancy: Occupancy) -> tuple[str, ...]:
    return tuple(_full_pool(bench, lane, occupancy) for bench in benches)


def _full_pool(bench: Bench, lane: Lane, occupancy: Occupancy) -> str:
    pool = bench.policy.name
    held_on = occupancy.held_by_node(lane).get
    held = sum([held_on(stand.node, 0) for stand in bench.crew])
    queued = occupancy.held_in_pool(pool, lane)
    able = f"{len(bench.stands)} of {len(bench.crew)} open nodes can run it"
    return f"pool {pool} is full in lane {lane}: {held + queued} calls held for {bench.crew_slots} slots; {able}"


def _able_reasons(shape: Shape, able: Sequence[str], fleet: FleetView, project: str | None) -> list[str]:
    needs = " and ".join([shape.tool, *sorted(shape.requires)])
    if not shape.regions:
        return [f"capability: {len(able)} of {len(fleet.seats)} nodes offer {needs}"]
    offering = len(fleet.capable(shape._replace(regions=())))
    return [
        f"capability: {offering} of {len(fleet.seats)} nodes offer {needs}",
        f"regions: {len(able)} of them where project {project} may run, {' or '.join(shape.regions)}",
    ]


def _addressed(stand: Stand, lane: Lane, reasons: tuple[str, ...]) -> Placement:
    return Placement(stand.pool, stand.node, lane, node_queue(stand.node, lane), reasons)

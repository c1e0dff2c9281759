"""Why nobody can run a call, or why nobody takes it now, in sentences for people. Pure.

Refuses to decide: `route` has decided already and asks for the words.
"""

from __future__ import annotations

from orchestrator.dispatch.view import FleetView, Seat, Shape
from tasks.errors import near
from tasks.queues import node_queue, pool_queue

NEAREST_MAX = 3
"""Nodes named in a refusal: those that lack least."""


def never(shape: Shape, fleet: FleetView, project: str | None = None) -> tuple[str, ...]:
    """Reasons why no joined node could ever run the shape."""
    seats = list(fleet.seats.values())
    grows = _grows(shape, fleet)
    outside = _outside(shape, fleet, project)
    if grows or outside:
        return (*grows, *outside)
    if not seats:
        return ("no node has joined the fleet",)
    return (*_nobody_has(shape, seats), *_nearest(shape, seats))


def not_now(shape: Shape, fleet: FleetView) -> tuple[str, ...]:
    """Reasons why every node that can run the shape is closed or paused."""
    able = fleet.capable(shape)
    closed = [_closed(fleet.seats[node], shape, fleet) for node in able[:NEAREST_MAX]]
    more = len(able) - len(closed)
    rest = (f"and {more} more",) if more > 0 else ()
    return (f"{_count(len(able))} could run it, none takes work now", *closed, *rest)


def closed_why(seat: Seat, shape: Shape, fleet: FleetView) -> str | None:
    """Why this node takes nothing of this shape now; None if it does."""
    if not seat.is_open:
        return "not open" if seat.state == "active" else str(seat.state)
    if fleet.is_pool_paused(seat.pool):
        return f"in pool {seat.pool}, which is paused"
    for queue in (node_queue(seat.node, shape.lane), pool_queue(seat.pool, shape.lane)):
        if fleet.is_queue_paused(queue):
            return f"behind queue {queue}, which is paused"
    broken = seat.broken(shape.tool)
    return None if broken is None else f"passed by: {broken}"


def _grows(shape: Shape, fleet: FleetView) -> list[str]:
    up = {seat.pool for seat in fleet.seats.values()}
    return [
        f"no node of pool {pool} {'that is up can run it' if pool in up else 'is up'}; {fleet.asked}"
        for pool in fleet.growing(shape)
    ]


def _outside(shape: Shape, fleet: FleetView, project: str | None) -> list[str]:
    if not shape.regions:
        return []
    able = [fleet.seats[node] for node in fleet.capable(shape._replace(regions=()))]
    bound = f"project {project} may not leave {' or '.join(shape.regions)}"
    said = [
        f"{bound}; node {seat.node} {f'is in {seat.location}' if seat.location else 'names no location'}"
        for seat in able[:NEAREST_MAX]
    ]
    more = len(able) - len(said)
    return [*said, f"and {more} more are elsewhere"] if more > 0 else said


def _closed(seat: Seat, shape: Shape, fleet: FleetView) -> str:
    return f"node {seat.node} is {closed_why(seat, shape, fleet) or 'in a pool that cannot take it'}"


def _nobody_has(shape: Shape, seats: list[Seat]) -> list[str]:
    said = []
    if not any(shape.tool in seat.tools for seat in seats):
        tools = sorted(frozenset().union(*(seat.tools for seat in seats)))
        said.append(f"none of {_count(len(seats))} offers the tool {shape.tool}{near(shape.tool, tools)}")
    for name in sorted(shape.requires):
        if not any(name in seat.capabilities for seat in seats):
            offered = sorted(frozenset().union(*(seat.capabilities for seat in seats)))
            said.append(f"none of {_count(len(seats))} offers the capability {name}{near(name, offered)}")
    if shape.pool is not None and not any(seat.pool == shape.pool for seat in seats):
        said.append(f"pool {shape.pool} has no node{near(shape.pool, sorted({seat.pool for seat in seats}))}")
    if not any(seat.slots.get(shape.lane, 0) > 0 for seat in seats):
        said.append(f"no node has slots in lane {shape.lane}")
    return said


def _nearest(shape: Shape, seats: list[Seat]) -> list[str]:
    lacks = sorted((len(seat.lacks(shape)), seat.node, seat) for seat in seats)
    return [
        f"node {node} (pool {seat.pool}) lacks {', '.join(seat.lacks(shape))}" for _, node, seat in lacks[:NEAREST_MAX]
    ]


def _count(number: int) -> str:
    return "1 node" if number == 1 else f"{number} nodes"

"""What `route` sees: seats (nodes), pools and pauses, frozen per fleet version.

Owns the capability filter and its cache. Refuses to hold what changes per call: that is
`Occupancy`, passed in beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

from orchestrator.dispatch.rendezvous import rank
from orchestrator.ledger.guest import Guest
from orchestrator.ledger.values import Waiting
from tasks.invocation import Lane
from tasks.node import NodeState
from tasks.pool import PoolPolicy, Strategy
from tasks.queues import node_queue, pool_queue

CACHED_SHAPES_MAX = 10_000
"""Distinct shapes remembered per fleet version; callers choose `requires`, so it must end somewhere."""
CACHED_RANKS_MAX = 20_000
"""Distinct projects ranked per fleet version: 16 MB with 100 nodes."""


class Occupancy(Protocol):
    """What is outstanding now, derived from unsettled attempts."""

    def held(self, node: str, lane: Lane) -> int:
        """Unsettled attempts released to this node."""
        ...

    def held_by_node(self, lane: Lane) -> Mapping[str, int]:
        """The same for every node at once; a node that holds none may be left out."""
        ...

    def held_in_pool(self, pool: str, lane: Lane) -> int:
        """Unsettled late-bound attempts of this pool that no node has claimed yet."""
        ...


class Shape(NamedTuple):
    """What decides which nodes can run a call. Calls of one shape wait and are placed alike."""

    lane: Lane
    tool: str
    requires: frozenset[str]
    pool: str | None
    regions: tuple[str, ...] = ()
    """Patterns of the locations its project's data may not leave; none: it runs anywhere."""
    guest: Guest | None = None
    """Whom policies let onto a node or not; None: nothing is asked."""


Regions = Mapping[str, tuple[str, ...]]
"""Project → patterns of locations."""


def shape_of(call: Waiting, regions: Regions) -> Shape:
    """The shape of a waiting call. Made three times per call, so without the detour of `Shape(...)`: 1 µs each."""
    within = regions.get(call.project or "", ()) if regions else ()
    return _new(Shape, (call.lane, call.tool, call.requires, call.pool, within, call.guest))


_new = tuple.__new__


@dataclass(frozen=True, slots=True)
class Seat:
    """One node as `route` sees it.

    Attributes:
        cpu: share of all cores in use, 0 to 1, as the node last reported.
        memory: share of memory in use, 0 to 1.
        location: as the node says; empty: it says none.
        is_open: active, with a good lease.
        state: for the reasons only.
        circuits: server → why nothing goes there now; `""` stands for all of its servers.
        unhealthy: the same for what failed its health checks.
        mirrors: server of agents → projects whose files it keeps a copy of.
    """

    node: str
    pool: str
    capabilities: frozenset[str]
    tools: frozenset[str]
    slots: Mapping[Lane, int]
    weight: float = 1.0
    cpu: float = 0.0
    memory: float = 0.0
    is_open: bool = True
    state: NodeState = NodeState.ACTIVE
    circuits: Mapping[str, str] = field(default_factory=dict)
    unhealthy: Mapping[str, str] = field(default_factory=dict)
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    location: str = ""

    def broken(self, tool: str) -> str | None:
        """Why the tool is passed by here for now; None if it is not."""
        if not self.circuits and not self.unhealthy:
            return None
        server = tool.partition(".")[0]
        for reasons, whose in ((self.unhealthy, "unhealthy: "), (self.circuits, "")):
            why = reasons.get("") or reasons.get(server)
            if why is not None:
                return whose + why
        return None

    def lacks(self, shape: Shape) -> tuple[str, ...]:
        """What this node would need to run the shape; empty if it can."""
        missing = [f"capability {name}" for name in sorted(shape.requires - self.capabilities)]
        if shape.tool not in self.tools:
            missing.insert(0, f"tool {shape.tool}")
        if self.slots.get(shape.lane, 0) <= 0:
            missing.append(f"slots in lane {shape.lane}")
        if shape.pool is not None and shape.pool != self.pool:
            missing.append(f"membership of pool {shape.pool}")
        if not self.is_within(shape.regions):
            missing.append(f"a location in {' or '.join(shape.regions)}")
        if not missing and shape.guest is not None and (why := shape.guest.barred(self)) is not None:
            missing.append(f"leave for this caller: {why}")
        return tuple(missing)

    def is_within(self, regions: tuple[str, ...]) -> bool:
        """It is where these patterns allow; no patterns allow everything."""
        return not regions or any(fnmatchcase(self.location, pattern) for pattern in regions)


@dataclass(frozen=True, slots=True)
class Stand:
    """An open seat in one lane, with its arithmetic done.

    Attributes:
        limit: attempts it may hold: its slots, and in the `tools` lane the pool's prefetch.
    """

    node: str
    pool: str
    slots: int
    limit: int
    weight: float


@dataclass(frozen=True, slots=True)
class Bench:
    """The stands of one pool that can run one shape.

    Attributes:
        crew: every open stand of the pool in that lane, whether it can run the shape or not.
        stand_of: the stands by node name.
        is_even: no stand has more weight than another.
        is_late: one pool queue that any node takes from; only where every node of the crew can run it.
    """

    policy: PoolPolicy
    stands: tuple[Stand, ...]
    stand_of: Mapping[str, Stand]
    crew: tuple[Stand, ...]
    is_even: bool
    is_late: bool
    slots: int
    crew_slots: int


@dataclass(slots=True)
class _Cache:
    capable: dict[Shape, tuple[str, ...]] = field(default_factory=dict)
    usable: dict[Shape, tuple[str, ...]] = field(default_factory=dict)
    pools: dict[Shape, Mapping[str, bool]] = field(default_factory=dict)
    growing: dict[Shape, tuple[str, ...]] = field(default_factory=dict)
    benches: dict[Shape, tuple[Bench, ...]] = field(default_factory=dict)
    ranks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    mirrors: dict[tuple[str, str], frozenset[str]] | None = None


class FleetView:
    """The fleet at one version. Never changes; only remembers what it worked out.

    Args:
        version: grows with every change but load reports, for which see `reloaded`.
        seats: by node name; closed ones too, so that reasons can name them.
        pools: by name; a pool without an entry has the default policy.
        paused: (kind, name) with kind queue, pool or project, as the ledger keeps them.
        regions: of projects that may not run everywhere.
        growth: nodes that the autoscaler could make, as it would make them; several of one pool where its
            machines differ in location or capabilities.
        asked: what becomes of a call that only such a node could run, for the reasons.
    """

    def __init__(
        self,
        version: int,
        seats: Mapping[str, Seat],
        pools: Mapping[str, PoolPolicy],
        paused: frozenset[tuple[str, str]] = frozenset(),
        *,
        regions: Regions | None = None,
        growth: tuple[Seat, ...] = (),
        asked: str = "the autoscaler is asked for one",
    ) -> None:
        self.version = version
        self.seats = seats
        self.pools = pools
        self.paused = paused
        self.regions: Regions = regions or {}
        self.growth = growth
        self.asked = asked
        self._cache = _Cache()

    def reloaded(self, loads: Mapping[str, tuple[float, float]]) -> FleetView:
        """The same fleet with new reports of (cpu, memory); keeps the version and what was worked out."""
        seats = dict(self.seats)
        for node, (cpu, memory) in loads.items():
            if node in seats:
                seats[node] = replace(seats[node], cpu=cpu, memory=memory)
        view = FleetView(
            self.version,
            seats,
            self.pools,
            self.paused,
            regions=self.regions,
            growth=self.growth,
            asked=self.asked,
        )
        view._cache = self._cache
        return view

    def policy(self, pool: str) -> PoolPolicy:
        """The pool's policy, or the default one."""
        return self.pools.get(pool) or PoolPolicy(pool)

    def is_open(self, node: str) -> bool:
        """Joined, active, with a good lease."""
        seat = self.seats.get(node)
        return seat is not None and seat.is_open

    def is_project_paused(self, project: str | None) -> bool:
        """Calls without a project cannot be paused by project."""
        return project is not None and ("project", project) in self.paused

    def is_pool_paused(self, pool: str) -> bool:
        """By its policy or by an operator."""
        return self.policy(pool).is_paused or ("pool", pool) in self.paused

    def is_queue_paused(self, queue: str) -> bool:
        """By an operator."""
        return ("queue", queue) in self.paused

    def capable(self, shape: Shape) -> tuple[str, ...]:
        """Joined nodes that can run it, open or not, by name."""
        known = self._cache.capable
        if shape not in known:
            _make_room(known, CACHED_SHAPES_MAX)
            known[shape] = tuple(sorted(node for node, seat in self.seats.items() if not seat.lacks(shape)))
        return known[shape]

    def usable(self, shape: Shape) -> tuple[str, ...]:
        """Those of them that are not passed by for it."""
        known = self._cache.usable
        if shape not in known:
            _make_room(known, CACHED_SHAPES_MAX)
            known[shape] = tuple(n for n in self.capable(shape) if self.seats[n].broken(shape.tool) is None)
        return known[shape]

    def benches(self, shape: Shape) -> tuple[Bench, ...]:
        """Pools that take work of this shape now, by name, each with its stands."""
        known = self._cache.benches
        if shape not in known:
            _make_room(known, CACHED_SHAPES_MAX)
            able = frozenset(self.usable(shape))
            pools = sorted({self.seats[node].pool for node in able})
            made = (self._bench(pool, shape, able) for pool in pools if not self.is_pool_paused(pool))
            known[shape] = tuple(bench for bench in made if bench.stands)
        return known[shape]

    def pools_of(self, shape: Shape) -> Mapping[str, bool]:
        """Pools of the nodes that can run it, open or not → one of these is not lost."""
        known = self._cache.pools
        if shape not in known:
            _make_room(known, CACHED_SHAPES_MAX)
            able = [self.seats[node] for node in self.capable(shape)]
            up = {seat.pool for seat in able if seat.state is not NodeState.LOST}
            known[shape] = {seat.pool: seat.pool in up for seat in able}
        return known[shape]

    def growing(self, shape: Shape) -> tuple[str, ...]:
        """Pools in which the autoscaler could make a node for it, by name."""
        known = self._cache.growing
        if shape not in known:
            _make_room(known, CACHED_SHAPES_MAX)
            known[shape] = tuple(sorted({seat.pool for seat in self.growth if not seat.lacks(shape)}))
        return known[shape]

    def mirroring(self, tool: str, project: str) -> frozenset[str]:
        """Nodes where this tool's server has a copy of the project's files."""
        if self._cache.mirrors is None:
            found: dict[tuple[str, str], set[str]] = {}
            for node, seat in self.seats.items():
                for server, projects in seat.mirrors.items():
                    for name in projects:
                        found.setdefault((server, name), set()).add(node)
            self._cache.mirrors = {key: frozenset(nodes) for key, nodes in found.items()}
        return self._cache.mirrors.get((tool.partition(".")[0], project), frozenset())

    def rank(self, project: str) -> tuple[str, ...]:
        """Every node, best home for this project first; 100 µs for 100 nodes the first time."""
        known = self._cache.ranks
        if project not in known:
            _make_room(known, CACHED_RANKS_MAX)
            known[project] = rank(project, {node: seat.weight for node, seat in self.seats.items()})
        return known[project]

    def _bench(self, pool: str, shape: Shape, able: frozenset[str]) -> Bench:
        policy, lane = self.policy(pool), shape.lane
        crew = tuple(self._stand(seat, lane, policy) for seat in self._crew(pool, lane))
        stands = tuple(stand for stand in crew if stand.node in able)
        is_late = policy.strategy is Strategy.LATE
        if is_late and self.is_queue_paused(pool_queue(pool, lane)):
            stands = ()
        return Bench(
            policy=policy,
            stands=stands,
            stand_of={stand.node: stand for stand in stands},
            crew=crew,
            is_even=len({stand.weight for stand in stands}) <= 1,
            # A node that joins later may take what waits in the pool's queue, wherever it is.
            is_late=is_late and len(stands) == len(crew) and not shape.regions and shape.guest is None,
            slots=sum(stand.slots for stand in stands),
            crew_slots=sum(stand.slots for stand in crew),
        )

    def _crew(self, pool: str, lane: Lane) -> list[Seat]:
        named = (self.seats[node] for node in sorted(self.seats))
        return [
            seat
            for seat in named
            if seat.pool == pool
            and seat.is_open
            and seat.slots.get(lane, 0) > 0
            and not self.is_queue_paused(node_queue(seat.node, lane))
        ]

    @staticmethod
    def _stand(seat: Seat, lane: Lane, policy: PoolPolicy) -> Stand:
        slots = seat.slots[lane]
        # An agent run prefetched behind another one would wait hours while a neighbour is idle.
        ahead = policy.prefetch if lane is Lane.TOOLS else 0
        return Stand(seat.node, seat.pool, slots, slots + ahead, seat.weight)


def _make_room(known: dict[Any, Any], limit: int) -> None:
    if len(known) >= limit:
        known.clear()

"""Everything that waits, in fair order, and parked where nothing can be done for it.

    loop:
        call = backlog.next(now_s)           None: nothing can be released until something changes
        Placement      → backlog.take(call.id)
        Hold, Refusal  → backlog.park(call.id, decision)

Every operation is O(log n) amortised. What has no room is not asked again: a whole set of shapes
is parked at once when none of its nodes has credit, and woken by `credit` on one of them; a line
that waits for its project's warm node is woken alone, and the next one only after it was served.
Refuses to place (`route`), to read a clock and to touch the ledger, which stays the truth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import count
from typing import Protocol

from orchestrator.dispatch.heap import Heap
from orchestrator.dispatch.lines import Arena, ArenaKey, Flow, Line, ProjectKey, order_of
from orchestrator.dispatch.tally import Tallies
from orchestrator.dispatch.view import Regions, Shape, shape_of
from orchestrator.ledger.values import Waiting
from tasks.invocation import Lane
from tasks.placement import Hold, Refusal


class Fleet(Protocol):
    """What the backlog needs of the fleet. `FleetView` satisfies it."""

    @property
    def regions(self) -> Regions:
        """Where projects may run. The same for every version: they are part of a shape."""
        ...

    def usable(self, shape: Shape) -> tuple[str, ...]:
        """Joined nodes that can run the shape and are not passed by for it, open or not, by name."""
        ...

    def is_open(self, node: str) -> bool:
        """Joined, active, with a good lease."""
        ...

    def is_project_paused(self, project: str | None) -> bool:
        """Paused by an operator."""
        ...


Spot = tuple[str, Lane]
"""One node and lane: what credit comes back to."""


class Backlog:
    """The fair queue of waiting calls. Single-threaded."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._regions = fleet.regions
        self.tallies = Tallies()
        self._calls: dict[str, Waiting] = {}
        self._lines: dict[Shape, dict[ProjectKey, Line]] = {}
        self._arenas: dict[ArenaKey, Arena] = {}
        self._arenas_at: defaultdict[Spot, list[Arena]] = defaultdict(list)
        self._open: Heap[Arena] = Heap()
        self._services = count(1)
        self._parked: defaultdict[Spot, Heap[Line]] = defaultdict(Heap)
        self._places = count()
        self._holds: Heap[Line] = Heap()
        self._delayed: Heap[str] = Heap()
        self._deadlines: Heap[str] = Heap()

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, call_id: object) -> bool:
        return call_id in self._calls

    @property
    def delayed(self) -> int:
        """Calls that wait for their `not_before`."""
        return len(self._delayed)

    def get(self, call_id: str) -> Waiting | None:
        """A waiting call."""
        return self._calls.get(call_id)

    def calls(self) -> Iterable[Waiting]:
        """Everything that waits, in no order; O(n), for views."""
        return self._calls.values()

    def add(self, call: Waiting, now_wall_s: float) -> None:
        """A call waits, again or for the first time; the same id replaces what was there."""
        if call.id in self._calls:
            self.remove(call.id)
        self._calls[call.id] = call
        if call.expires_at is not None:
            self._deadlines.put(call.id, call.expires_at)
        if call.not_before is not None and call.not_before > now_wall_s:
            self._delayed.put(call.id, call.not_before)
            self.tallies.delay(shape_of(call, self._regions), 1)
        else:
            self._queue(call)

    def next(self, now_s: float) -> Waiting | None:
        """The call whose turn it is; the same one until it is taken, parked or removed."""
        for line in self._holds.pop_until(now_s):
            self._wake_line(line)
        while (arena := self._open.first()) is not None:
            flow = None if arena.is_parked else arena.ready.first()
            if flow is not None:
                return self._head(flow)
            self._open.discard(arena)
        return None

    def take(self, call_id: str) -> Waiting:
        """The call was placed: it leaves, and its project's turn moves on.

        Raises:
            KeyError: it does not wait.
        """
        call = self._calls[call_id]
        line = self._line_of(call)
        if line is not None:
            line.place = None
            line.flow.arena.charge(line.flow)
            self._last_in_turn(line.flow.arena)
        self._leave(call, line)
        return call

    def remove(self, call_id: str) -> Waiting | None:
        """The call was cancelled or has ended; None if it does not wait."""
        call = self._calls.get(call_id)
        if call is not None:
            self._leave(call, self._line_of(call))
        return call

    def park(self, call_id: str, decision: Hold | Refusal) -> None:
        """Nothing can be done for the call now.

        A hold for a node parks the call's line until `credit` there or `until_s`. Any other parks
        every shape that the same nodes could run, until one of them has credit or the fleet changes.
        """
        call = self._calls[call_id]
        line = self._line_of(call)
        if line is None or self._fleet.is_project_paused(call.project):
            return
        if isinstance(decision, Hold) and decision.node is not None:
            self._park_line(line, decision.node, decision.until_s)
        else:
            line.flow.arena.is_parked = True

    def credit(self, node: str, lane: Lane) -> None:
        """This node may have room in this lane: offer what could use it, fairest first."""
        for arena in self._arenas_at.get((node, lane), ()):
            self._unpark(arena)
        self._wake_next((node, lane))

    def fleet_changed(self, fleet: Fleet) -> None:
        """Nodes, tools, pauses or policies changed: everything parked is asked again, nothing is lost."""
        self._fleet = fleet
        self._regroup()
        for arena in self._arenas.values():
            self._refresh_pauses(arena)
            self._unpark(arena)
        for spot in list(self._parked):
            if fleet.is_open(spot[0]):
                self._wake_those_it_lost(spot)
                self._wake_next(spot)
            else:
                self._wake_all(spot)

    def due(self, now_wall_s: float) -> int:
        """Delayed calls whose time has come are queued; returns how many."""
        ids = self._delayed.pop_until(now_wall_s)
        for call_id in ids:
            call = self._calls[call_id]
            self.tallies.delay(shape_of(call, self._regions), -1)
            self._queue(call)
        return len(ids)

    def expired(self, now_wall_s: float) -> list[Waiting]:
        """Calls past their deadline, removed. Whoever cannot note it in the ledger adds them again."""
        ids = self._deadlines.pop_until(now_wall_s)
        return [call for call_id in ids if (call := self.remove(call_id)) is not None]

    def wait_s(self, now_s: float, now_wall_s: float) -> float | None:
        """Seconds until `next`, `due` or `expired` has something to do by time alone; None if never."""
        ends = [self._holds.first_order()]
        waits = [end - now_s for end in ends if end is not None]
        walls = [self._delayed.first_order(), self._deadlines.first_order()]
        waits += [end - now_wall_s for end in walls if end is not None]
        return max(0.0, min(waits)) if waits else None

    def _head(self, flow: Flow) -> Waiting:
        line = flow.ready.first()
        assert line is not None, "a flow stands in its arena only while a line is ready"
        call_id = line.calls.first()
        assert call_id is not None, "a line is ready only while it has a call"
        return self._calls[call_id]

    def _leave(self, call: Waiting, line: Line | None) -> None:
        del self._calls[call.id]
        self._deadlines.discard(call.id)
        if line is None:
            self._delayed.discard(call.id)
            self.tallies.delay(shape_of(call, self._regions), -1)
            return
        if line.is_tallied:
            self.tallies.discard(line.shape, call)
        else:
            self.tallies.pause(line.shape, -1)
        line.calls.discard(call.id)
        self._after(line)

    def _queue(self, call: Waiting) -> None:
        shape = shape_of(call, self._regions)
        project = (call.tenant, call.project)
        lines = self._lines.setdefault(shape, {})
        line = lines.get(project)
        if line is None:
            line = lines[project] = self._new_line(shape, project)
        if line.is_tallied:
            self.tallies.add(shape, call)
        else:
            self.tallies.pause(shape, 1)
        line.calls.put(call.id, order_of(call))
        line.refresh()
        self._show(line.flow.arena)

    def _new_line(self, shape: Shape, project: ProjectKey) -> Line:
        flow = self._arena_for(shape).flow(project)
        flow.is_paused = self._fleet.is_project_paused(project[1])
        line = Line(flow, shape, is_tallied=not flow.is_paused)
        flow.lines.add(line)
        return line

    def _line_of(self, call: Waiting) -> Line | None:
        if call.id in self._delayed:
            return None
        return self._lines.get(shape_of(call, self._regions), {}).get((call.tenant, call.project))

    def _after(self, line: Line) -> None:
        """A call left the line."""
        spot = self._give_on(line)
        if not len(line.calls):
            self._drop(line)
        else:
            line.refresh()
        if spot is not None:
            self._wake_next(spot)

    def _drop(self, line: Line) -> None:
        if line.parked_at is not None:
            self._parked[line.parked_at, line.shape.lane].discard(line)
        self._holds.discard(line)
        lines = self._lines[line.shape]
        del lines[line.flow.project]
        if not lines:
            del self._lines[line.shape]
        line.flow.lines.discard(line)
        line.refresh()

    def _park_line(self, line: Line, node: str, until_s: float | None) -> None:
        spot = self._give_on(line)
        line.parked_at = node
        if line.place is None:
            line.place = next(self._places)
        self._parked[node, line.shape.lane].put(line, line.place)
        if until_s is not None:
            self._holds.put(line, until_s)
        line.refresh()
        if spot is not None and spot[0] != node:
            self._wake_next(spot)

    def _wake_line(self, line: Line) -> None:
        if line.parked_at is None:
            return
        self._parked[line.parked_at, line.shape.lane].discard(line)
        self._holds.discard(line)
        line.parked_at = None
        line.refresh()
        self._show(line.flow.arena)

    def _wake_next(self, spot: Spot) -> None:
        """Wake one line that waits for this node; its use of the credit wakes the next."""
        parked = self._parked.get(spot)
        while parked:
            line = parked.first()
            assert line is not None, "not empty"
            self._wake_line(line)
            if not line.flow.is_paused:
                line.woken_from = spot[0]
                break
        if parked is not None and not parked:
            del self._parked[spot]

    def _wake_those_it_lost(self, spot: Spot) -> None:
        """Wake what waits for a node that can no longer run it: whoever is woken alone may wait on there."""
        can_run: dict[Shape, bool] = {}
        for line in list(self._parked[spot]):
            if line.shape not in can_run:
                can_run[line.shape] = spot[0] in self._fleet.usable(line.shape)
            if not can_run[line.shape]:
                self._wake_line(line)

    def _wake_all(self, spot: Spot) -> None:
        for line in list(self._parked.get(spot, ())):
            self._wake_line(line)
        self._parked.pop(spot, None)

    @staticmethod
    def _give_on(line: Line) -> Spot | None:
        node, line.woken_from = line.woken_from, None
        return None if node is None else (node, line.shape.lane)

    def _show(self, arena: Arena) -> None:
        if not arena.is_parked and arena.ready:
            self._open.put(arena, arena.served)

    def _unpark(self, arena: Arena) -> None:
        arena.is_parked = False
        self._show(arena)

    def _last_in_turn(self, arena: Arena) -> None:
        # Arenas may share nodes: the one not served for longest is first, so none keeps another one waiting.
        arena.served = next(self._services)
        self._show(arena)

    def _arena_for(self, shape: Shape) -> Arena:
        key = (shape.lane, self._fleet.usable(shape))
        arena = self._arenas.get(key)
        if arena is None:
            arena = self._arenas[key] = Arena(key)
            self._index(arena)
        return arena

    def _index(self, arena: Arena) -> None:
        lane, nodes = arena.key
        for node in nodes:
            self._arenas_at[node, lane].append(arena)

    def _refresh_pauses(self, arena: Arena) -> None:
        for flow in list(arena.flows.values()):
            is_paused = self._fleet.is_project_paused(flow.project[1])
            if is_paused != flow.is_paused:
                flow.is_paused = is_paused
                flow.refresh()
            for line in flow.lines:
                if line.is_tallied == is_paused:
                    self._retally(line)

    def _retally(self, line: Line) -> None:
        """Its project was paused or resumed: nobody buys machines for what an operator holds up."""
        line.is_tallied = not line.is_tallied
        self.tallies.pause(line.shape, -len(line.calls) if line.is_tallied else len(line.calls))
        change = self.tallies.add if line.is_tallied else self.tallies.discard
        for call_id in line.calls:
            change(line.shape, self._calls[call_id])

    def _regroup(self) -> None:
        """Sort shapes into arenas anew. An arena whose shapes stay together keeps its virtual time."""
        old = {arena: self._wanted(shapes) for arena, shapes in self._shapes_by_arena().items()}
        self._arenas = {}
        self._arenas_at.clear()
        self._open = Heap()
        for arena, wanted in old.items():
            key = arena.key if arena.key in wanted else next(iter(wanted))
            if key not in self._arenas:
                arena.key = key
                self._arenas[key] = arena
                self._index(arena)
        for arena, wanted in old.items():
            for shapes in wanted.values():
                self._move(arena, shapes)

    def _shapes_by_arena(self) -> dict[Arena, list[Shape]]:
        found: dict[Arena, list[Shape]] = {}
        for shape, lines in self._lines.items():
            found.setdefault(next(iter(lines.values())).flow.arena, []).append(shape)
        return found

    def _wanted(self, shapes: Iterable[Shape]) -> dict[ArenaKey, list[Shape]]:
        wanted: dict[ArenaKey, list[Shape]] = {}
        for shape in shapes:
            wanted.setdefault((shape.lane, self._fleet.usable(shape)), []).append(shape)
        return wanted

    def _move(self, arena: Arena, shapes: Iterable[Shape]) -> None:
        for shape in shapes:
            target = self._arena_for(shape)
            if target is arena:
                continue
            for line in self._lines[shape].values():
                line.move(target)

"""The pieces of the fair queue: a line per project and shape, a flow per project, an arena per set of nodes.

    Arena   everything that competes for the same nodes; fair between its flows
      Flow  one project's calls in that arena; takes its turn among the arena's flows
        Line  one project's calls of one shape; by priority, then age

Start-time fair queueing: a flow's `tag` is the virtual time at which its next call starts, the
least tag goes first, each release moves the tag on by one, and a flow that comes (back) begins at
the arena's present. So a project that waits goes before everything another one has waiting beyond
its next call. The present moves on by one per round of all ready flows, and not only with the tags
served: else a stream of ever new projects, each beginning at the present, would starve the old ones.
Refuses to know why a line is parked: `backlog.py` does.

Source: Goyal, Vin and Cheng, Start-time Fair Queueing, 1996; the clock's rate is that of Demers,
Keshav and Shenker, Fair Queueing, 1989.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.dispatch.heap import Heap
from orchestrator.dispatch.view import Shape
from orchestrator.ledger.values import Waiting
from tasks.invocation import Lane

ProjectKey = tuple[str, str | None]
"""Tenant and project. Calls without a project share their tenant's own turn."""
ArenaKey = tuple[Lane, tuple[str, ...]]
"""Lane and the nodes that can run it, by name. One that is passed by is not among them: what waits for a broken
server alone must not hold up what the same nodes' other servers can do."""

LAG_MAX = 1.0
"""Turns a flow may catch up after it was parked. None would send it to the back each time its warm
node is full, for ever; without a bound it would shut out the others for as long as it had waited."""


@dataclass(eq=False, slots=True)
class Arena:
    """One set of nodes that shapes compete for, with its own virtual time."""

    key: ArenaKey
    clock: float = 0.0
    flows: dict[ProjectKey, Flow] = field(default_factory=dict)
    ready: Heap[Flow] = field(default_factory=Heap)
    is_parked: bool = False
    served: int = 0
    """Number of its last release among those of all arenas."""

    def flow(self, project: ProjectKey) -> Flow:
        """The project's flow; begins at the present."""
        flow = self.flows.get(project)
        if flow is None:
            flow = self.flows[project] = Flow(self, project, self.clock)
        return flow

    def charge(self, flow: Flow) -> None:
        """One of the flow's calls was released."""
        self.clock = max(self.clock + 1.0 / max(1, len(self.ready)), flow.tag)
        flow.tag += 1.0


@dataclass(eq=False, slots=True)
class Flow:
    """One project's calls in one arena."""

    arena: Arena
    project: ProjectKey
    tag: float
    is_paused: bool = False
    lines: set[Line] = field(default_factory=set)
    ready: Heap[Line] = field(default_factory=Heap)

    def refresh(self) -> None:
        """Stand among the arena's flows exactly while there is a line to take from."""
        arena = self.arena
        if self.is_paused or not len(self.ready):
            arena.ready.discard(self)
            if not self.lines:
                arena.flows.pop(self.project, None)
            return
        if self not in arena.ready:
            self.tag = max(self.tag, arena.clock - LAG_MAX)
        arena.ready.put(self, self.tag)


@dataclass(eq=False, slots=True)
class Line:
    """One project's calls of one shape."""

    flow: Flow
    shape: Shape
    calls: Heap[str] = field(default_factory=Heap)
    parked_at: str | None = None
    """The node it waits for."""
    woken_from: str | None = None
    """The node whose credit woke it, until it was used or given on."""
    is_tallied: bool = True
    """Its calls count as demand: its project is not paused."""
    place: int | None = None
    """Its place among those that wait for a node; kept until it is served."""

    def refresh(self) -> None:
        """Stand among the flow's lines exactly while there is a call that may be offered."""
        flow = self.flow
        if self.parked_at is not None or not len(self.calls):
            flow.ready.discard(self)
        else:
            flow.ready.put(self, self.calls.first_order())
        flow.refresh()

    def move(self, target: Arena) -> None:
        """Go on in another arena, as far ahead of its present as here."""
        old = self.flow
        old.lines.discard(self)
        old.ready.discard(self)
        self.flow = target.flow(old.project)
        self.flow.tag = max(self.flow.tag, target.clock + old.tag - old.arena.clock)
        self.flow.lines.add(self)
        old.refresh()
        self.refresh()


def order_of(call: Waiting) -> tuple[int, float, str]:
    """Within a line: higher priority first, then the older one."""
    return (-call.priority, call.accepted_at, call.id)

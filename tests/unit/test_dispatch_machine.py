"""Dispatch under any sequence of events: nothing is lost, nothing runs twice, no wake-up is missed."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from orchestrator.dispatch.lines import order_of
from orchestrator.dispatch.testing import desk_of, fleet_of, seat, waiting
from orchestrator.dispatch.view import FleetView, Seat, shape_of
from orchestrator.ledger.values import Waiting
from tasks.invocation import Lane
from tasks.placement import Hold, Placement, Refusal
from tasks.pool import PoolPolicy, Strategy

NODES = ("a1", "a2", "b1")
TOOLS = ("x.a", "x.b")
PROJECTS = (None, "p", "q", "r")


class DispatchMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: each call leaves once, and what can go does go."""

    outstanding = Bundle("outstanding")

    def __init__(self) -> None:
        super().__init__()
        self.serial = itertools.count()
        self.expected: set[str] = set()
        self.gone: set[str] = set()

    @initialize(strategy=st.sampled_from(list(Strategy)), prefetch=st.integers(0, 2))
    def begin(self, strategy: Strategy, prefetch: int) -> None:
        """Three nodes in two pools."""
        self.policies = (
            PoolPolicy("a", strategy, prefetch=prefetch, warm_wait_agents_s=5.0),
            PoolPolicy("b", prefetch=prefetch),
        )
        self.paused: frozenset[tuple[str, str]] = frozenset()
        self.seats = {node: self.seat(node, TOOLS, 1) for node in NODES}
        self.desk = desk_of(self.view())

    def seat(self, node: str, tools: tuple[str, ...], slots: int) -> Seat:
        """A node with one agents slot."""
        return seat(node, node[0], slots=slots, agents=1, tools=frozenset(tools))

    def view(self) -> FleetView:
        """The fleet as it now is."""
        return fleet_of(self.seats.values(), *self.policies, paused=self.paused)

    @rule(
        project=st.sampled_from(PROJECTS),
        tool=st.sampled_from(TOOLS),
        lane=st.sampled_from(list(Lane)),
        pool=st.sampled_from([None, None, "a", "b"]),
        priority=st.integers(4, 6),
        delay_s=st.sampled_from([None, None, None, 1.5]),
    )
    def add(
        self, *, project: str | None, tool: str, lane: Lane, pool: str | None, priority: int, delay_s: float | None
    ) -> None:
        """A call is accepted."""
        now_s = self.desk.now_s
        call = waiting(f"c{next(self.serial)}", project, tool=tool, lane=lane, pool=pool, priority=priority)
        call = replace(call, accepted_at=now_s, not_before=None if delay_s is None else now_s + delay_s)
        self.desk.backlog.add(call, now_s)
        self.expected.add(call.id)

    @rule(limit=st.sampled_from([1, 3, None]), target=outstanding)
    def release(self, limit: int | None) -> list[tuple[Waiting, Placement]]:
        """A pass, perhaps cut short."""
        released = self.desk.release_all(limit)
        for call, _ in released:
            assert call.id in self.expected
            assert call.id not in self.gone
            assert not self.desk.fleet.is_project_paused(call.project)
            self.expected.discard(call.id)
            self.gone.add(call.id)
        return released

    @rule(released=consumes(outstanding))
    def settle(self, released: list[tuple[Waiting, Placement]]) -> None:
        """Attempts end."""
        for _, placement in released:
            self.desk.give_back(placement)

    @rule(number=st.integers(0, 10))
    def cancel(self, number: int) -> None:
        """A waiting call is cancelled."""
        if self.expected:
            call_id = sorted(self.expected)[number % len(self.expected)]
            assert self.desk.backlog.remove(call_id) is not None
            self.expected.discard(call_id)

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        """Both clocks move."""
        self.desk.now_s += seconds

    @rule(what=st.sampled_from([("project", "p"), ("project", "q"), ("pool", "a"), ("queue", "mcpfleet.n.b1.tools")]))
    def pause_or_resume(self, what: tuple[str, str]) -> None:
        """An operator changes their mind."""
        self.paused ^= {what}
        self.desk.change(self.view())

    @rule(
        node=st.sampled_from(NODES),
        tools=st.sampled_from([TOOLS, TOOLS, TOOLS[:1], TOOLS[1:]]),
        slots=st.integers(0, 2),
    )
    def change_node(self, node: str, tools: tuple[str, ...], slots: int) -> None:
        """A node joins again, with other tools or slots."""
        self.seats[node] = self.seat(node, tools, slots)
        self.desk.change(self.view())

    @rule(node=st.sampled_from(NODES), is_open=st.booleans())
    def open_or_close(self, node: str, is_open: bool) -> None:
        """A lease lapses, a node is cordoned, or comes back."""
        if node in self.seats:
            self.seats[node] = replace(self.seats[node], is_open=is_open)
            self.desk.change(self.view())

    @rule(node=st.sampled_from(NODES))
    def leave(self, node: str) -> None:
        """A node leaves for good."""
        self.seats.pop(node, None)
        self.desk.change(self.view())

    @invariant()
    def keeps_exactly_what_waits(self) -> None:
        """Nothing is lost and nothing comes back."""
        assert {call.id for call in self.desk.backlog.calls()} == self.expected
        assert len(self.desk.backlog) == len(self.expected)

    @invariant()
    def counts_what_waits_by_shape(self) -> None:
        """As if they were counted one by one, however they came and went."""
        assert self.desk.backlog.tallies.all() == Counter(shape_of(call, {}) for call in self.desk.backlog.calls())

    @rule()
    def counts_what_is_demand(self) -> None:
        """Due calls that no operator holds up, with the seconds at which they became due."""
        self.desk.backlog.due(self.desk.now_s)
        demand: dict[object, list[int]] = {}
        for call in self.desk.backlog.calls():
            due = max(call.accepted_at, call.not_before or 0.0)
            if due <= self.desk.now_s and not self.desk.fleet.is_project_paused(call.project):
                demand.setdefault(shape_of(call, {}), []).append(int(due))
        found = {shape: (tally.calls, tally.oldest()) for shape, tally in self.desk.backlog.tallies.due()}
        assert found == {shape: (len(seconds), min(seconds)) for shape, seconds in demand.items()}
        by_second = {shape: tally.by_second for shape, tally in self.desk.backlog.tallies.due()}
        assert by_second == {shape: Counter(seconds) for shape, seconds in demand.items()}

    @rule()
    def everything_that_can_go_goes(self) -> None:
        """After a pass, no line's first call could be placed: no wake-up was missed."""
        for call, placement in self.release(None):
            self.desk.give_back(placement)
            self.desk.occupancy.add(placement)
            assert call.id not in self.desk.backlog
        self.release(None)
        for call in self.heads():
            decision = self.desk.decide(call)
            assert not isinstance(decision, Placement), f"{call} could go to {decision}"
            assert isinstance(decision, Hold | Refusal)

    def heads(self) -> list[Waiting]:
        """The first due call of each project and shape."""
        due = [c for c in self.desk.backlog.calls() if c.not_before is None or c.not_before <= self.desk.now_s]
        lines: dict[object, Waiting] = {}
        for call in sorted(due, key=order_of):
            lines.setdefault((shape_of(call, {}), call.tenant, call.project), call)
        return list(lines.values())


TestDispatchMachine = DispatchMachine.TestCase
TestDispatchMachine.settings = settings(max_examples=60, stateful_step_count=40)

"""The fair queue: order, parking, and that nothing is lost or forgotten."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from orchestrator.dispatch.lines import order_of
from orchestrator.dispatch.testing import TOOL, Desk, desk_of, fleet_of, seat, waiting
from orchestrator.dispatch.view import FleetView, Seat, shape_of
from orchestrator.ledger.values import Waiting
from tasks.invocation import Lane
from tasks.placement import Hold, Placement, Refusal
from tasks.pool import PoolPolicy, Strategy


def ids(released: list[tuple[Waiting, Placement]]) -> list[str]:
    """What was released, in order."""
    return [call.id for call, _ in released]


def fill(desk: Desk, project: str | None, number: int, **changes: object) -> None:
    """So many calls of one project."""
    for index in range(number):
        call_id = f"{project}-{changes.get('tool', '')}-{changes.get('priority', '')}-{index:05}"
        desk.backlog.add(waiting(call_id, project, accepted_at=index * 1e-6, **changes), desk.now_s)


def releases_until(desk: Desk, wanted: str, limit: int) -> int:
    """Releases up to and with that call, attempts ending one by one, oldest first."""
    running: list[Placement] = []
    for number in itertools.count(1):
        released = desk.release_all(limit=1)
        while not released:
            desk.give_back(running.pop(0))
            released = desk.release_all(limit=1)
        running.append(released[0][1])
        if released[0][0].id == wanted:
            return number
        assert number <= limit, f"{wanted} not within {limit} releases"
    raise AssertionError


# ------------------------------------------------------------------------------------------ order


def test_higher_priority_first_then_age_within_a_project() -> None:
    """Inside one project, priority beats age and age beats arrival."""
    desk = desk_of(fleet_of([seat("a1", slots=9)]))
    for call_id, priority, at in [("late", 5, 3.0), ("old", 5, 1.0), ("urgent", 9, 4.0), ("low", 0, 0.0)]:
        desk.backlog.add(waiting(call_id, "shop", priority=priority, accepted_at=at), 0.0)
    assert ids(desk.release_all()) == ["urgent", "old", "late", "low"]


def test_priority_holds_across_the_shapes_of_a_project() -> None:
    """A project's urgent call goes first whatever tool it calls."""
    desk = desk_of(fleet_of([seat("a1", slots=9, tools=frozenset({"x.a", "x.b"}))]))
    desk.backlog.add(waiting("b", "shop", tool="x.b", accepted_at=1.0), 0.0)
    desk.backlog.add(waiting("a", "shop", tool="x.a", priority=9, accepted_at=2.0), 0.0)
    desk.backlog.add(waiting("b0", "shop", tool="x.b", accepted_at=0.0), 0.0)
    assert ids(desk.release_all()) == ["a", "b0", "b"]


def test_priority_does_not_jump_over_another_project() -> None:
    """One project cannot buy another one's turns with priority."""
    desk = desk_of(fleet_of([seat("a1", slots=20)]))
    fill(desk, "greedy", 8, priority=9)
    fill(desk, "modest", 2, priority=0)
    order = [call.project for call, _ in desk.release_all()]
    assert order[:4].count("modest") == 2


def test_calls_without_a_project_share_their_tenants_turn() -> None:
    """Anonymous calls of one tenant are one party; another tenant's are another."""
    desk = desk_of(fleet_of([seat("a1", slots=20)]))
    fill(desk, None, 6)
    desk.backlog.add(waiting("other", None, tenant="blue", accepted_at=9.0), 0.0)
    assert ids(desk.release_all()).index("other") <= 1


def test_projects_of_the_same_name_in_two_tenants_take_turns() -> None:
    """A tenant cannot spend the turns of another one's project by using its name."""
    desk = desk_of(fleet_of([seat("a1", slots=20)]))
    fill(desk, "shop", 6)
    desk.backlog.add(waiting("other", "shop", tenant="blue", accepted_at=9.0), 0.0)
    assert ids(desk.release_all()).index("other") <= 1


@settings(max_examples=30)
@given(
    slots=st.integers(1, 4),
    nodes=st.integers(1, 3),
    before=st.integers(0, 60),
    shapes=st.integers(1, 3),
    priorities=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    strategy=st.sampled_from(list(Strategy)),
)
def test_first_call_of_a_project_waits_at_most_twice_the_slots(
    *, slots: int, nodes: int, before: int, shapes: int, priorities: list[int], strategy: Strategy
) -> None:
    """Behind 10,000 calls of one project (here: enough), another one's first call is released soon."""
    tools = [f"x.t{index}" for index in range(shapes)]
    seats = [seat(f"a{n}", slots=slots, tools=frozenset(tools)) for n in range(nodes)]
    desk = desk_of(fleet_of(seats, PoolPolicy("east", strategy, prefetch=1)))
    for tool, priority in zip(itertools.cycle(tools), priorities, strict=False):
        fill(desk, "greedy", 150 // len(priorities), tool=tool, priority=priority)
    running: list[Placement] = []
    for _ in range(before):
        released = desk.release_all(limit=1)
        if not released:
            desk.give_back(running.pop(0))
        running += [placement for _, placement in released]
    desk.backlog.add(waiting("first", "modest", tool=tools[0], priority=0), 0.0)
    for placement in running:
        desk.give_back(placement)
    assert releases_until(desk, "first", 100) <= 2 * slots * nodes


def test_first_call_is_released_within_twice_the_slots_behind_10_000() -> None:
    """The promise at its own size, over two shapes, with the greedy project warm on every slot."""
    seats = [seat(f"a{n}", slots=4, tools=frozenset({"x.a", "x.b"})) for n in range(2)]
    desk = desk_of(fleet_of(seats))
    fill(desk, "greedy", 5_000, tool="x.a")
    fill(desk, "greedy", 5_000, tool="x.b", priority=9)
    running = [placement for _, placement in desk.release_all()]
    desk.now_s = 10.0
    for placement in running:
        desk.give_back(placement)
    desk.backlog.add(waiting("first", "modest", tool="x.a", accepted_at=10.0), 10.0)
    assert releases_until(desk, "first", 100) <= 2 * 8


def test_fast_pool_of_a_project_does_not_cost_it_turns_in_a_slow_one() -> None:
    """Turns are counted per set of nodes: what runs elsewhere takes nothing from anybody here."""
    fast, slow = seat("f1", "fast", slots=1, tools=frozenset({"x.f"})), seat("s1", "slow", slots=1)
    desk = desk_of(fleet_of([fast, slow], PoolPolicy("fast", prefetch=0), PoolPolicy("slow", prefetch=0)))
    fill(desk, "both", 200, tool="x.f")
    fill(desk, "both", 50)
    fill(desk, "only", 50)
    slow_order: list[str | None] = []
    running = [row[1] for row in desk.release_all()]
    for turn in range(200):
        for placement in [p for p in running if p.pool == "fast" or turn % 10 == 0]:
            running.remove(placement)
            desk.give_back(placement)
        released = desk.release_all()
        running += [placement for _, placement in released]
        slow_order += [call.project for call, placement in released if placement.pool == "slow"]
    assert abs(slow_order.count("both") - slow_order.count("only")) <= 2


def test_stream_of_new_projects_does_not_starve_an_old_one() -> None:
    """Every newcomer gets its first turn, but not all of them before anybody's second."""
    desk = desk_of(fleet_of([seat("a1", slots=1)], PoolPolicy("east", prefetch=0)))
    fill(desk, "old", 100)
    fill(desk, "new0", 1)
    released = []
    for number in range(1, 201):
        fill(desk, f"new{number}", 1)
        ((call, placement),) = desk.release_all()
        released.append(call.project)
        desk.give_back(placement)
    assert released.count("old") >= 8


@pytest.mark.parametrize("patient", [1, 2, 9])
def test_project_that_asks_one_by_one_gets_no_more_than_its_share(patient: int) -> None:
    """A caller that adds its next call as soon as one is released does not pass the others each time."""
    desk = desk_of(fleet_of([seat("a1", slots=1)], PoolPolicy("east", prefetch=0)))
    for number in range(patient):
        fill(desk, f"patient{number}", 60)
    released: list[str | None] = []
    for number in range(100):
        if "one" not in desk.backlog:
            desk.backlog.add(waiting("one", "one", fence=number), 0.0)
        ((call, placement),) = desk.release_all()
        released.append(call.project)
        desk.give_back(placement)
    assert abs(released.count("one") - 100 / (patient + 1)) <= 2


def test_project_that_waited_for_its_node_does_not_shut_out_the_others() -> None:
    """It waited of its own will: it catches up by one turn, not by all that the others had meanwhile."""
    policy = PoolPolicy("east", prefetch=0, warm_wait_tools_s=60.0)
    desk = desk_of(fleet_of([seat("a1", slots=1), seat("a2", slots=1)], policy))
    desk.occupancy.by_node[Lane.TOOLS]["a1"] = 1
    desk.affinity.placed("loyal", "a1", now_wall_s=0.0, ttl_s=1e6, fleet=desk.fleet)
    fill(desk, "loyal", 50)
    fill(desk, "busy", 100)
    order: list[str | None] = []
    for turn in range(60):
        desk.now_s = 100.0 if turn >= 40 else 0.0
        ((call, placement),) = desk.release_all()
        order.append(call.project)
        desk.give_back(placement)
    assert order[:40].count("loyal") == 0
    assert 9 <= order[40:].count("loyal") <= 12


def test_sets_of_nodes_that_overlap_take_turns() -> None:
    """A call that fits one node is not starved by calls that fit that node and others."""
    a1, a2 = seat("a1", tools=frozenset({"x.wide", "x.narrow"})), seat("a2", tools=frozenset({"x.wide"}))
    desk = desk_of(fleet_of([a1, a2]))
    fill(desk, "wide", 100, tool="x.wide")
    running = [placement for _, placement in desk.release_all()]
    fill(desk, "narrow", 1, tool="x.narrow")
    desk.now_s = 5.0
    for placement in running:
        desk.give_back(placement)
    assert releases_until(desk, "narrow-x.narrow--00000", 20) <= 8


# ---------------------------------------------------------------------------------------- parking


def test_pass_without_credit_asks_once_and_not_per_call() -> None:
    """With nothing free, 3,000 waiting calls of 300 projects cost one question, and then none."""
    desk = desk_of(fleet_of([seat("a1", slots=1)], PoolPolicy("east", prefetch=0)))
    desk.occupancy.by_node[Lane.TOOLS]["a1"] = 1
    for project in range(300):
        fill(desk, f"p{project}", 10)
    assert desk.release_all() == []
    assert desk.asked == 1
    assert desk.release_all() == []
    assert desk.asked == 1


def test_credit_asks_a_bounded_number_of_times_however_many_wait_for_the_node() -> None:
    """200 projects warm on one full node: one credit there costs a few questions, not 200."""
    seats = [seat("a1", slots=1), seat("a2", slots=1)]
    desk = desk_of(fleet_of(seats, PoolPolicy("east", prefetch=0, warm_wait_tools_s=1e6)))
    hour_s = 3600.0
    for number in range(200):
        desk.affinity.placed(f"p{number}", "a1", now_wall_s=0.0, ttl_s=hour_s, fleet=desk.fleet)
        fill(desk, f"p{number}", 3)
    ((_, placement),) = desk.release_all()
    desk.asked = 0
    for _ in range(50):
        desk.give_back(placement)
        ((_, placement),) = desk.release_all()
    assert desk.asked <= 50 * 3


def test_projects_waiting_for_one_node_take_turns_on_it() -> None:
    """Waiting for the same warm node, nobody is served twice before all were served once."""
    desk = desk_of(
        fleet_of([seat("a1", slots=1), seat("a2", slots=1)], PoolPolicy("east", prefetch=0, warm_wait_tools_s=1e6))
    )
    for number in range(5):
        desk.affinity.placed(f"p{number}", "a1", now_wall_s=0.0, ttl_s=1e6, fleet=desk.fleet)
        fill(desk, f"p{number}", 4)
    served = []
    for _ in range(15):
        ((call, placement),) = desk.release_all()
        served.append(call.project)
        desk.give_back(placement)
    assert all(len(set(served[start : start + 5])) == 5 for start in (0, 5, 10))


def test_one_shape_without_room_does_not_hold_up_another() -> None:
    """Long runs without a slot leave short calls of the same project moving."""
    desk = desk_of(fleet_of([seat("a1", slots=4, agents=1)]))
    fill(desk, "shop", 3, lane=Lane.AGENTS, tool=TOOL, priority=9)
    desk.backlog.add(waiting("short", "shop", accepted_at=5.0), 0.0)
    assert "short" in ids(desk.release_all())
    assert len(desk.backlog) == 2


def test_held_call_is_offered_again_when_its_wait_is_over() -> None:
    """A hold ends by time alone, and the loop is told when."""
    desk = desk_of(fleet_of([seat("a1"), seat("a2")]))
    desk.backlog.add(waiting("c", "shop"), 0.0)
    desk.backlog.park("c", Hold(("waits",), "a1", until_s=2.0))
    assert desk.backlog.next(1.9) is None
    assert desk.backlog.wait_s(0.5, 0.5) == 1.5
    assert desk.backlog.next(2.0) is not None


def test_refused_call_waits_for_the_fleet_to_change() -> None:
    """A call nobody can run stays, and goes when a node that can joins."""
    desk = desk_of(fleet_of([seat("a1", tools=frozenset())]))
    desk.backlog.add(waiting("c"), 0.0)
    assert desk.release_all() == []
    assert desk.release_all() == []
    assert desk.asked == 1
    desk.change(fleet_of([seat("a1", tools=frozenset()), seat("a2")], version=2))
    assert ids(desk.release_all()) == ["c"]


def test_next_gives_the_same_call_until_something_is_done_with_it() -> None:
    """Asking twice takes nothing out."""
    desk = desk_of(fleet_of([seat("a1")]))
    desk.backlog.add(waiting("c"), 0.0)
    assert desk.backlog.next(0.0) == desk.backlog.next(0.0) == waiting("c")


def test_paused_project_waits_and_resumes_whole() -> None:
    """Pausing a project holds exactly its calls; resuming gives every one of them back."""
    seats = [seat("a1", slots=20)]
    desk = desk_of(fleet_of(seats, paused=[("project", "shop")]))
    fill(desk, "shop", 5)
    fill(desk, "blog", 2)
    assert [call.project for call, _ in desk.release_all()] == ["blog", "blog"]
    desk.change(fleet_of(seats, version=2))
    assert len(desk.release_all()) == 5


def test_park_of_a_paused_projects_call_parks_nobody_else() -> None:
    """`route` says hold for a paused project; that must not park the shape for all."""
    desk = desk_of(fleet_of([seat("a1")], paused=[("project", "shop")]))
    desk.backlog.add(waiting("c", "shop"), 0.0)
    desk.backlog.add(waiting("d", "blog"), 0.0)
    desk.backlog.park("c", Hold(("project shop is paused",)))
    assert ids(desk.release_all()) == ["d"]


# ------------------------------------------------------------------------------ time and removal


def test_delayed_call_is_not_offered_before_its_time() -> None:
    """`not_before` is on the wall clock; the loop is told when to come back."""
    desk = desk_of(fleet_of([seat("a1")]))
    desk.backlog.add(waiting("c", not_before=5.0), 1.0)
    assert (desk.backlog.delayed, len(desk.backlog)) == (1, 1)
    assert desk.backlog.next(4.0) is None
    assert desk.backlog.wait_s(1.0, 1.0) == 4.0
    assert desk.backlog.due(4.9) == 0
    assert desk.backlog.due(5.0) == 1
    assert desk.backlog.next(5.0) is not None


def test_expired_calls_leave_and_are_named() -> None:
    """A deadline ends the wait of delayed, parked and queued calls alike."""
    desk = desk_of(fleet_of([seat("a1", tools=frozenset())]))
    for call_id, not_before in [("queued", None), ("delayed", 99.0)]:
        desk.backlog.add(waiting(call_id, expires_at=3.0, not_before=not_before), 0.0)
    desk.backlog.add(waiting("later", expires_at=4.0), 0.0)
    desk.release_all()
    assert desk.backlog.expired(2.9) == []
    assert {call.id for call in desk.backlog.expired(3.0)} == {"queued", "delayed"}
    assert len(desk.backlog) == 1


def test_cancelled_call_is_never_offered() -> None:
    """Removal by id works at the head, in the middle, delayed, parked, and twice."""
    desk = desk_of(fleet_of([seat("a1", slots=9)]))
    fill(desk, "shop", 5)
    desk.backlog.add(waiting("delayed", not_before=9.0), 0.0)
    for call_id in ["shop---00000", "shop---00002", "delayed"]:
        assert desk.backlog.remove(call_id) is not None
        assert desk.backlog.remove(call_id) is None
    assert ids(desk.release_all()) == ["shop---00001", "shop---00003", "shop---00004"]
    assert len(desk.backlog) == 0


def test_call_added_again_replaces_what_was_there() -> None:
    """A retry of the same Invocation stands once, with its new fence."""
    desk = desk_of(fleet_of([seat("a1")]))
    desk.backlog.add(waiting("c", priority=9), 0.0)
    desk.backlog.add(waiting("c", fence=1, not_before=3.0), 0.0)
    assert len(desk.backlog) == 1
    assert desk.backlog.next(0.0) is None
    desk.backlog.due(3.0)
    assert [call.fence for call, _ in desk.release_all()] == [1]


def test_emptied_backlog_keeps_nothing() -> None:
    """Lines, flows and parking of what is gone are gone too."""
    desk = desk_of(fleet_of([seat("a1", slots=1000)]))
    for project in range(50):
        fill(desk, f"p{project}", 3, requires=frozenset({"git"}) if project % 2 else frozenset())
    desk.release_all()
    fill(desk, "last", 2)
    desk.release_all()
    backlog = desk.backlog
    assert not backlog._lines
    assert not backlog._parked
    assert not len(backlog._holds)
    assert not any(arena.flows for arena in backlog._arenas.values())


# --------------------------------------------------------------------------------------- property

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
            lines.setdefault((shape_of(call), call.tenant, call.project), call)
        return list(lines.values())


TestDispatchMachine = DispatchMachine.TestCase
TestDispatchMachine.settings = settings(max_examples=60, stateful_step_count=40)

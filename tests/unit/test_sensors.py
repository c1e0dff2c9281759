"""What the autoscaler sees, of arrivals that are known and of a fleet played by hand."""

from __future__ import annotations

import random

import pytest

from orchestrator.autoscaler.observe.attribution import owner
from orchestrator.autoscaler.values import ClaimState, Rung
from orchestrator.dispatch.tally import Demand
from orchestrator.dispatch.view import Shape
from tasks.invocation import Lane, State
from tasks.node import Load, NodeState
from tasks.outcome import ErrorInfo, Failure
from tests.unit.sensed_fleet import POOL, SensedFleet, policy

CRASHED = ErrorInfo("connection_lost", "gone", Failure.MAYBE_STARTED)
SAID_NO = ErrorInfo("tool_error", "no", Failure.TOOL_ERROR)
LATE = ErrorInfo("tool_timeout", "late", Failure.MAYBE_STARTED)


def _served(fleet: SensedFleet, number: int, *, every_s: float, service_s: float = 0.0) -> None:
    """So many calls come, one after the other, and are run at once."""
    for index in range(number):
        fleet.pass_s(every_s)
        fleet.release(f"c{index}")
        fleet.start(f"c{index}")
        fleet.clock.advance(service_s)
        fleet.end(f"c{index}")


# ---------------------------------------------------------------------------------------- arrivals


def test_a_steady_stream_has_its_rate_and_no_trend() -> None:
    """Four calls a second for five minutes."""
    fleet = SensedFleet()
    _served(fleet, 1200, every_s=0.25)
    seen = fleet.tools()
    assert seen.arrivals_per_s == pytest.approx(4.0, rel=0.02)
    assert abs(seen.arrivals_trend) < 1e-3


def test_random_arrivals_have_their_rate_within_chance() -> None:
    """A Poisson stream of 5 a second: 300 in a minute, give or take 17; and no trend that is sure of itself."""
    fleet, draw = SensedFleet(), random.Random(4)
    for index in range(1500):
        fleet.pass_s(draw.expovariate(5.0))
        fleet.release(f"c{index}")
    seen = fleet.tools()
    assert seen.arrivals_per_s == pytest.approx(5.0, abs=4 * 0.29)
    assert abs(seen.arrivals_trend) < 4 * seen.arrivals_trend_sigma


def test_a_ramp_has_its_slope() -> None:
    """From nothing to 8 calls a second in four minutes: a thirtieth of a call per second, per second."""
    fleet = SensedFleet()
    for second in range(240):
        fleet.pass_s(1.0)
        for index in range(round(second / 30)):
            fleet.release(f"c{second}-{index}")
    seen = fleet.tools()
    assert seen.arrivals_trend == pytest.approx(1 / 30, rel=0.05)
    assert seen.arrivals_trend > 3 * seen.arrivals_trend_sigma > 0


def test_a_call_counts_in_the_second_in_which_it_became_due() -> None:
    """Released in one moment, after waiting for two minutes: that is no burst of this minute."""
    fleet = SensedFleet()
    fleet.pass_s(300)
    for index in range(50):
        fleet.release(f"c{index}", waited_s=120.0)
    assert fleet.tools().arrivals_per_s == 0.0


def test_what_waits_has_arrived() -> None:
    """A pool that is full, or at zero, sees what comes before anything of it was released, and once only."""
    fleet = SensedFleet()
    fleet.pass_s(300)
    dues = [fleet.clock.wall_s() - 30 + index / 2 for index in range(60)]
    fleet.wait(*dues)
    assert fleet.tools().arrivals_per_s == pytest.approx(1.0)
    fleet.waiting.clear()
    for index, due in enumerate(dues):
        fleet.release(f"c{index}", waited_s=fleet.clock.wall_s() - due)
    assert fleet.tools().arrivals_per_s == pytest.approx(1.0)


def test_what_comes_back_unstarted_did_not_arrive_twice() -> None:
    """Handed back by a node that drains: released again, it is the same demand."""
    fleet = SensedFleet()
    fleet.pass_s(300)
    fleet.release("c1", waited_s=5.0)
    fleet.end("c1", "handed_back", to=State.WAITING)
    fleet.release("c1", waited_s=7.0)
    assert fleet.tools().arrivals_per_s == pytest.approx(1 / 60)


# -------------------------------------------------------------------------------- waits, service, faults


def test_waiting_times_are_from_due_to_started() -> None:
    """The time in the node's queue counts, and what a tool takes does not."""
    fleet = SensedFleet()
    fleet.pass_s(300)
    for index in range(100):
        fleet.release(f"c{index}", waited_s=index / 10)
    fleet.clock.advance(1.0)
    for index in range(100):
        fleet.start(f"c{index}")
    seen = fleet.tools()
    assert (seen.wait_p50_s, seen.wait_p95_s) == (pytest.approx(5.9), pytest.approx(10.4))
    fleet.pass_s(61)
    assert fleet.tools().wait_p95_s is None


def test_service_is_what_the_tool_took() -> None:
    """Mean, spread and tail of attempts that had their slot for as long as they needed it."""
    fleet, draw = SensedFleet(), random.Random(5)
    for index in range(1000):
        fleet.release(f"c{index}", waited_s=60.0)
        fleet.start(f"c{index}")
        fleet.clock.advance(draw.expovariate(0.5))
        fleet.end(f"c{index}")
    for index in range(20):
        fleet.release(f"x{index}")
        fleet.start(f"x{index}")
        fleet.clock.advance(100.0)
        fleet.end(f"x{index}", "cancelled", to=State.CANCELLED)
    seen = fleet.tools()
    assert seen.service_mean_s == pytest.approx(2.0, rel=0.1)
    assert seen.service_scv == pytest.approx(1.0, rel=0.25)
    assert seen.service_p95_s == pytest.approx(6.0, rel=0.15)


@pytest.mark.parametrize(
    ("ending", "error", "to", "rate"),
    [
        ("failed", CRASHED, State.WAITING, 0.5),
        ("superseded", None, State.WAITING, 0.5),
        ("lost", CRASHED, State.LOST, 0.5),
        ("failed", SAID_NO, State.FAILED, 0.0),
        ("failed", LATE, State.FAILED, 0.0),
    ],
)
def test_an_error_of_the_tool_is_no_error_of_a_machine(
    ending: str, error: ErrorInfo | None, to: State, rate: float
) -> None:
    """One attempt of two ended so."""
    fleet = SensedFleet()
    for call, how in (("a", (ending, error, to)), ("b", ("succeeded", None, State.SUCCEEDED))):
        fleet.release(call)
        fleet.start(call)
        fleet.end(call, how[0], error=how[1], to=how[2])
    assert fleet.tools().error_rate == rate


def test_what_an_operator_or_a_caller_ended_is_in_no_rate() -> None:
    """Cancelled, expired, handed back: neither an error nor a success."""
    fleet = SensedFleet()
    for ending in ("cancelled", "expired", "handed_back", "disowned"):
        fleet.release(ending)
        fleet.end(ending, ending, to=State.CANCELLED)
    fleet.release("x")
    fleet.start("x")
    fleet.end("x", "failed", error=CRASHED, to=State.FAILED)
    assert fleet.tools().error_rate == 1.0


# ------------------------------------------------------------------------------------------- now


def test_depth_slots_and_running_are_of_this_moment() -> None:
    """Ledger and queues together; closed and unhealthy nodes have no slots."""
    fleet = SensedFleet()
    fleet.join("n1", slots=4, agents=2)
    fleet.join("n2").state = NodeState.CORDONED
    fleet.join("n3").why = {"": "its lease had lapsed"}
    fleet.join("other", pool="else")
    fleet.pass_s(300)
    now = fleet.clock.wall_s()
    fleet.wait(now - 42.5, now - 3)
    fleet.wait(now - 10, lane=Lane.AGENTS)
    for call in ("a", "b", "c"):
        fleet.release(call)
    fleet.start("a")
    seen = fleet.look()
    tools, agents = seen.lanes[Lane.TOOLS], seen.lanes[Lane.AGENTS]
    assert (tools.waiting, tools.queued, tools.running, tools.depth, tools.slots) == (2, 2, 1, 4, 4)
    assert (agents.waiting, agents.queued, agents.running, agents.slots) == (1, 0, 0, 2)
    assert tools.oldest_wait_s == pytest.approx(42.0, abs=1.0)
    assert (seen.others, seen.missing) == (1, ())


def test_loads_are_the_mean_of_nodes_that_report() -> None:
    """A node that fell silent has no load that anybody knows."""
    fleet = SensedFleet()
    fleet.join("n1", load=Load(cpu=0.2, memory=0.4))
    fleet.join("n2", load=Load(cpu=0.6, memory=0.6))
    fleet.join("n3", load=Load(cpu=1.0, memory=1.0)).reported_at_s = None
    fleet.pass_s(1)
    seen = fleet.look()
    assert (seen.cpu, seen.memory) == (pytest.approx(0.4), pytest.approx(0.5))
    assert SensedFleet().look().cpu is None


def test_a_machine_of_the_pool_is_counted_as_the_newest_one_was() -> None:
    """Then as the last node that was seen, then as the file says."""
    fleet = SensedFleet(policy(slots_tools=9, slots_agents=3))
    fleet.slots = None
    assert fleet.tools().slots_per_machine == 9
    fleet.slots = {Lane.TOOLS: 5}
    seen = fleet.look()
    assert [seen.lanes[lane].slots_per_machine for lane in Lane] == [5, 0]
    fleet.join("by-hand", slots=64)
    fleet.order("a")
    fleet.join(f"{POOL}-a", slots=6)
    assert fleet.tools().slots_per_machine == 6


def test_machines_are_seen_with_what_they_hold_and_since_when_they_are_idle() -> None:
    """Never idle while it holds an attempt; then from the last end on."""
    fleet = SensedFleet()
    fleet.order("a", billing_s=3600.0, price_eur_h=0.02)
    fleet.order("b", ClaimState.BOOTING, rung=Rung("cloud", is_spot=True), ready_at=None)
    fleet.join(f"{POOL}-a")
    fleet.pass_s(100)
    fleet.release("c", node=f"{POOL}-a")
    busy, booting = fleet.look().machines
    assert (busy.held, busy.idle_s, busy.paid_left_s) == (1, 0.0, 3500.0)
    assert (booting.held, booting.idle_s, booting.is_spot, booting.age_s) == (0, 0.0, True, 100.0)
    assert booting.paid_left_s is None
    fleet.end("c")
    fleet.pass_s(30)
    assert fleet.look().machines[0].idle_s == pytest.approx(30.0)
    fleet.boots[POOL] = [60.0, 70.0, 80.0, 90.0, 100.0, 110.0, 120.0, 130.0, 140.0, 200.0]
    assert fleet.look().boot_p90_s == 140.0


def test_what_a_late_look_finds_idle_was_idle_since_it_joined() -> None:
    """A new leader counts from its own beginning, not from the epoch."""
    fleet = SensedFleet()
    fleet.pass_s(50)
    fleet.order("a")
    fleet.join(f"{POOL}-a")
    fleet.pass_s(20)
    assert fleet.look().machines[0].idle_s == pytest.approx(20.0)
    fleet.sensors.begin()
    fleet.pass_s(5)
    assert fleet.look().machines[0].idle_s == pytest.approx(5.0)


# ---------------------------------------------------------------------------------------- trust


def test_a_minute_must_have_been_watched() -> None:
    """Rates of a window that is not full are told, and marked."""
    fleet = SensedFleet()
    _served(fleet, 48, every_s=0.25)
    seen = fleet.look()
    assert seen.missing == ("watching for 12 s only: rates and waiting times are of 60 s",)
    assert seen.lanes[Lane.TOOLS].arrivals_per_s == pytest.approx(4.0, rel=0.05)
    fleet.pass_s(48)
    assert fleet.look().missing == ()


def test_a_silent_node_makes_its_pool_untrusted() -> None:
    """Between three missed renewals and the end of its lease it is ready, and nobody knows what it does."""
    fleet = SensedFleet(policy(), policy("else"))
    node = fleet.join("n1")
    fleet.pass_s(100)
    fleet.renews = False
    fleet.pass_s(6)
    assert fleet.look().missing == ()
    fleet.pass_s(1)
    assert fleet.look().missing == ("node n1 has not reported for 7 s",)
    assert fleet.look("else").missing == ()
    node.state = NodeState.LOST
    assert fleet.look().missing == (
        "node n1 fell silent 7 s ago and may come back with what it ran (counted as gone in 113 s)",
    )
    fleet.pass_s(120)
    assert fleet.look().missing == ()


def test_a_nodes_silence_counts_from_its_join() -> None:
    """One that joined a moment ago, or that a new leader remembered then, renews within seconds, or is missed."""
    fleet = SensedFleet()
    fleet.pass_s(600)
    fleet.join("n1").reported_at_s = None
    fleet.pass_s(2)
    assert fleet.look().missing == ()
    fleet.pass_s(88)
    assert fleet.look().missing == ("node n1 has not reported for 90 s",)


def test_who_may_not_lead_and_who_cannot_send_is_not_believed() -> None:
    """Both are said."""
    fleet = SensedFleet()
    fleet.pass_s(100)
    fleet.leads, fleet.down = False, "refused"
    said = fleet.look().missing
    assert [text.split(":")[0] for text in said] == [
        "the broker does not answer (refused)",
        "this orchestrator cannot prove that it leads",
    ]


# ------------------------------------------------------------------------------------- whose demand


def test_a_call_is_the_demand_of_one_pool() -> None:
    """By priority, then by name; a pool that may grow no more passes what waits on, if another can."""
    fleet = SensedFleet(policy("a"), policy("b", priority=1, max_machines=1), policy("c"))
    fleet.wait(fleet.clock.wall_s(), pools=("a", "b", "by-hand"))
    assert [fleet.tools(pool).waiting for pool in "abc"] == [0, 1, 0]
    fleet.order("x", ClaimState.BOOTING, pool="b")
    assert [fleet.tools(pool).waiting for pool in "abc"] == [1, 0, 0]
    fleet.waiting.clear()
    fleet.wait(fleet.clock.wall_s(), pools=("b",))
    assert [fleet.tools(pool).waiting for pool in "abc"] == [0, 1, 0]


def test_calls_that_no_scaled_pool_could_run_are_nobodys_demand() -> None:
    """No machine is bought for what it could not run."""
    shape = Shape(Lane.TOOLS, "x.y", frozenset(), None)
    assert owner(Demand(shape, 1, 0.0, {}, pools=("by-hand",)), {POOL: policy()}, set()) is None


def test_an_unmet_need_is_one_that_no_node_that_is_up_could_serve() -> None:
    """Where another pool's node could, the call waits for room and not for a machine."""
    fleet = SensedFleet()
    assert not fleet.look().has_unmet
    fleet.wait(fleet.clock.wall_s())
    assert not fleet.look().has_unmet
    fleet.wait(fleet.clock.wall_s(), up=False)
    assert fleet.look().has_unmet


def test_a_pool_that_was_never_seen_needs_a_machine_to_learn_from() -> None:
    """Nobody could call its tools before: they are not known. That is no call that waits."""
    fleet = SensedFleet()
    fleet.slots = None
    assert (fleet.look().is_unknown, fleet.look().has_unmet) == (True, False)
    fleet.slots = {Lane.TOOLS: 1}
    assert (fleet.look().is_unknown, fleet.look().has_unmet) == (False, False)


def test_regions_are_wanted_by_the_number_of_calls() -> None:
    """Those that may run anywhere want none."""
    fleet, now = SensedFleet(), SensedFleet().clock.wall_s()
    fleet.wait(now, regions=("us-*",))
    fleet.wait(now, now, regions=("eu-*", "fsn1"))
    fleet.wait(now)
    assert fleet.look().regions_wanted == ("eu-*", "fsn1", "us-*")


# ---------------------------------------------------------------------------------------- memory


def test_starts_that_nobody_told_are_forgotten() -> None:
    """What was missed does not stay in memory for ever."""
    fleet = SensedFleet()
    for index in range(3000):
        fleet.release(f"c{index}")
        fleet.open.clear()
    fleet.look()
    assert not fleet.sensors._starting


def test_other_pools_cost_nothing() -> None:
    """Pools without a policy are not remembered."""
    fleet = SensedFleet()
    fleet.release("c", pool="else")
    assert not fleet.sensors._starting
    assert [seen.pool for seen in fleet.sensors.observe()] == [POOL]

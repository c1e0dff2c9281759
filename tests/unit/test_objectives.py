"""Service level objectives: which events count, which are good, and what is left of a budget."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from orchestrator.happenings import Accepted, AttemptEnded, AttemptReleased, Ended
from orchestrator.observability.calls import LiveCalls
from orchestrator.observability.objectives import OBJECTIVES, SHORT_TOOL_S, Objectives
from tasks.invocation import Call, Invocation, Lane, Principal, State
from tasks.node import LEASE_TTL_S
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.testing.clock import FakeClock
from tasks.wire_objectives import ObjectiveView

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Fleet:
    """Tells of calls as the real one does."""

    def __init__(self) -> None:
        self.clock, self.registry = FakeClock(), CollectorRegistry()
        self.calls = LiveCalls(self.clock)
        self.objectives = Objectives(self.registry, self.calls, self.clock, lease_ttl_s=LEASE_TTL_S)

    def accept(self, name: str = "i", *, not_before: float | None = None) -> None:
        call = Call("a.b", trace_id=TRACE, not_before=not_before)
        self.calls.begin(Accepted(Invocation(name, call, Principal("p"), Lane.TOOLS, State.WAITING, 0.0)))

    def release(self, name: str = "i") -> None:
        at = self.clock.wall_s()
        self.objectives.hear(AttemptReleased(name, 1, "a.b", None, "main", "n", Lane.TOOLS, "q", at, 0.0, ("only: n",)))

    def end(
        self,
        name: str = "i",
        state: State = State.SUCCEEDED,
        *,
        ran_s: float = 0.01,
        code: str | None = None,
        lane: Lane = Lane.TOOLS,
        was_released: bool = True,
    ) -> None:
        now = self.clock.wall_s()
        error = None if code is None else ErrorInfo(code, "why", Failure.PERMANENT)
        last = AttemptEnded(
            name, 1, "a.b", None, "main", "n", lane, state, state.value, now - 1, now - ran_s, now, 1, error, None
        )
        happening = Ended(
            name, state, now, "a.b", Outcome(state.value, error=error), None, last if was_released else None
        )
        if state is State.WAITING:
            self.objectives.hear(last)
            return
        self.objectives.hear(happening)
        self.calls.end(happening)

    def view(self, name: str) -> ObjectiveView:
        [found] = [one for one in self.objectives.show().items if one.name == name]
        return found


def test_a_short_call_is_good_below_its_threshold() -> None:
    """From accepted to told, whatever of it was waiting; 0.3 s is too slow for the median and well for the tail."""
    fleet = Fleet()
    for took_s in (0.02, 0.3):
        fleet.accept()
        fleet.clock.advance(took_s)
        fleet.end()
    half, tail = fleet.view("short_calls_p50"), fleet.view("short_calls_p99")
    assert (half.samples, half.bad, half.is_met) == (2, 1, True)
    assert (tail.samples, tail.bad, tail.budget_left) == (2, 0, 1.0)
    assert half.measured_s == pytest.approx(0.025)
    get = fleet.registry.get_sample_value
    assert get("mcpfleet_objective_events_total", {"objective": "short_calls_p50", "verdict": "bad"}) == 1


@pytest.mark.parametrize("why", ["long", "agents", "delayed", "unknown", "failed"])
def test_what_says_nothing_of_the_fleets_speed_is_no_sample(why: str) -> None:
    """A slow tool, an agent, a call that asked for later, one of an earlier process, and one without a success."""
    fleet = Fleet()
    if why != "unknown":
        fleet.accept(not_before=1.0 if why == "delayed" else None)
    fleet.clock.advance(9)
    fleet.end(
        state=State.FAILED if why == "failed" else State.SUCCEEDED,
        ran_s=SHORT_TOOL_S * 2 if why == "long" else 0.01,
        lane=Lane.AGENTS if why == "agents" else Lane.TOOLS,
        code="tool_error" if why == "failed" else None,
    )
    assert fleet.view("short_calls_p99").samples == 0
    assert fleet.view("availability").samples == 1


@pytest.mark.parametrize(
    ("state", "code", "was_released", "is_bad"),
    [
        (State.SUCCEEDED, None, True, False),
        (State.FAILED, "tool_error", True, False),
        (State.FAILED, "tool_timeout", True, False),
        (State.FAILED, "node_lost", True, True),
        (State.LOST, "node_restarted", True, True),
        (State.EXPIRED, "deadline_passed", False, True),
        (State.EXPIRED, "deadline_passed", True, False),
    ],
)
def test_the_fleet_answers_for_what_it_did_itself(
    state: State, code: str | None, was_released: bool, is_bad: bool
) -> None:
    """Lost with a node, or no room before its deadline; what a tool did, or a deadline in the middle of it, is not."""
    fleet = Fleet()
    fleet.end(state=state, code=code, was_released=was_released)
    assert (fleet.view("availability").samples, fleet.view("availability").bad) == (1, int(is_bad))


def test_a_cancelled_call_counts_for_nothing_and_a_refused_one_for_bad() -> None:
    """Whoever cancels has no complaint; whom a door could not serve has one."""
    fleet = Fleet()
    fleet.end(state=State.CANCELLED)
    assert fleet.view("availability").samples == 0
    assert fleet.view("availability").is_met is None
    fleet.objectives.refused()
    assert (fleet.view("availability").samples, fleet.view("availability").bad) == (1, 1)


@pytest.mark.parametrize(("later_s", "bad"), [(5.0, 0), (40.0, 1)])
def test_failover_counts_from_the_last_word_of_the_node(later_s: float, bad: int) -> None:
    """A lease before it lapsed, until the call is released again; other retries are no failover."""
    fleet = Fleet()
    fleet.end("other", State.WAITING, code="tool_error")
    fleet.end(state=State.WAITING, code="node_lost")
    fleet.clock.advance(later_s)
    fleet.release("other")
    fleet.release()
    fleet.release()
    seen = fleet.view("failover")
    assert (seen.samples, seen.bad) == (1, bad)
    assert seen.measured_s is not None
    assert seen.measured_s >= LEASE_TTL_S


def test_the_budget_is_what_the_target_allows() -> None:
    """Of 1,000 calls one may go wrong: one leaves nothing of the budget, two overspend it by as much again."""
    fleet = Fleet()
    for number in range(1000):
        fleet.end(state=State.LOST if number == 0 else State.SUCCEEDED)
    assert fleet.view("availability").budget_left == pytest.approx(0.0, abs=1e-9)
    assert fleet.view("availability").is_met
    fleet.end(state=State.LOST)
    assert fleet.view("availability").budget_left == pytest.approx(-1.0, rel=0.01)
    assert not fleet.view("availability").is_met


def test_the_burn_rate_forgets_what_is_older_than_an_hour() -> None:
    """Two hours ago all went wrong; within the hour one of 1,000 did, which is just what is allowed."""
    fleet = Fleet()
    for _ in range(50):
        fleet.end(state=State.LOST)
    fleet.clock.advance(7200)
    for number in range(1000):
        fleet.end(state=State.LOST if number == 0 else State.SUCCEEDED)
    assert fleet.view("availability").burn_rate_1h == pytest.approx(1.0)
    fleet.clock.advance(7200)
    assert fleet.view("availability").burn_rate_1h is None


def test_every_objective_can_be_reckoned_with() -> None:
    """A target of 1 leaves no budget to divide by; what is judged by time has one."""
    assert all(0 < one.target < 1 for one in OBJECTIVES)
    assert all((one.threshold_s is None) is (one.kind == "availability") for one in OBJECTIVES)
    assert len({one.name for one in OBJECTIVES}) == len(OBJECTIVES)


def test_calls_are_forgotten_with_their_end() -> None:
    """What is kept for exemplars does not grow with the calls that were."""
    fleet = Fleet()
    fleet.accept()
    assert fleet.calls.exemplar("i") == {"trace_id": TRACE}
    fleet.end()
    assert len(fleet.calls) == 0

"""What time it is: on a node by the orchestrator's clock, at the orchestrator without jumps."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.clock import SLEW, SteadyClock
from tasks.node import JoinReply, RenewReply
from tasks.testing.clock import FakeClock
from worker.fleet_clock import FleetClock

WRONG_BY_S = 300.0


def _renew(node: FakeClock, fleet: FakeClock, clock: FleetClock, there_s: float = 0.02, back_s: float = 0.02) -> None:
    """One round trip, of so long each way."""
    sent_at_s = node.mono_s()
    node.advance(there_s)
    fleet.advance(there_s)
    now = fleet.wall_s()
    node.advance(back_s)
    fleet.advance(back_s)
    clock.learn(now, sent_at_s=sent_at_s)


@pytest.mark.parametrize("wrong_by_s", [WRONG_BY_S, -WRONG_BY_S])
def test_a_node_minutes_off_tells_the_orchestrators_time(wrong_by_s: float) -> None:
    """From its first answer on, whichever way its own wall clock is wrong."""
    fleet = FakeClock()
    node = FakeClock(fleet.wall_s() + wrong_by_s, mono_s=5.0)
    clock = FleetClock(node)
    assert clock.wall_s() == node.wall_s()
    _renew(node, fleet, clock)
    assert clock.wall_s() == pytest.approx(fleet.wall_s(), abs=0.001)
    assert clock.off_s() == pytest.approx(wrong_by_s, abs=0.001)


@pytest.mark.parametrize("step_s", [WRONG_BY_S, -WRONG_BY_S])
def test_a_jump_of_the_nodes_clock_changes_nothing(step_s: float) -> None:
    """NTP or an operator sets the machine's clock while it works."""
    fleet = node = FakeClock()
    clock = FleetClock(node)
    _renew(node, FakeClock(), clock)
    before_s = clock.wall_s()
    node.step_wall(step_s)
    node.advance(1.0)
    assert clock.wall_s() == pytest.approx(before_s + 1.0)
    assert clock.mono_s() == fleet.mono_s()


def test_a_jump_of_the_orchestrators_clock_is_followed_with_the_next_answer() -> None:
    """Old answers, however quick they were, speak of a clock that is no more."""
    fleet, node = FakeClock(), FakeClock()
    clock = FleetClock(node)
    for _ in range(5):
        _renew(node, fleet, clock, 0.001, 0.001)
    fleet.step_wall(-WRONG_BY_S)
    _renew(node, fleet, clock, 0.3, 0.1)
    assert clock.wall_s() == pytest.approx(fleet.wall_s(), abs=0.21)


def test_the_quickest_answer_counts() -> None:
    """A slow, lopsided round trip says little, and does not spoil what is known."""
    fleet, node = FakeClock(), FakeClock(mono_s=77.0)
    clock = FleetClock(node)
    _renew(node, fleet, clock, 0.001, 0.001)
    _renew(node, fleet, clock, 2.0, 0.0)
    assert clock.wall_s() == pytest.approx(fleet.wall_s(), abs=0.001)


@given(
    trips=st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 3.0)), min_size=1, max_size=30),
    wrong_by_s=st.floats(-1e4, 1e4),
)
def test_it_is_never_off_by_more_than_half_the_last_round_trip(
    trips: list[tuple[float, float]], wrong_by_s: float
) -> None:
    """However lopsided the network is."""
    fleet = FakeClock()
    node = FakeClock(fleet.wall_s() + wrong_by_s, mono_s=3.0)
    clock = FleetClock(node)
    for there_s, back_s in trips:
        _renew(node, fleet, clock, there_s, back_s)
        assert abs(clock.wall_s() - fleet.wall_s()) <= (there_s + back_s) / 2 + 0.001


def test_an_orchestrator_that_does_not_say_leaves_the_machines_clock() -> None:
    """Rolling upgrade: a newer node under an older orchestrator works as it did."""
    node = FakeClock()
    clock = FleetClock(node)
    clock.learn(None, sent_at_s=node.mono_s())
    node.step_wall(WRONG_BY_S)
    assert clock.wall_s() == node.wall_s()
    assert RenewReply.model_validate_json(json.dumps({"granted": True})).now is None
    assert not JoinReply.model_fields["now"].is_required()


@pytest.mark.parametrize("step_s", [WRONG_BY_S, -WRONG_BY_S])
def test_the_orchestrators_clock_does_not_jump(step_s: float) -> None:
    """A minute stays a minute, to a twentieth, when the machine's clock is set; and it gets there."""
    machine = FakeClock()
    clock = SteadyClock(machine)
    machine.advance(10.0)
    before_s = clock.wall_s()
    machine.step_wall(step_s)
    assert clock.wall_s() == before_s
    machine.advance(60.0)
    assert clock.wall_s() - before_s == pytest.approx(60.0, rel=SLEW * 1.001)
    while abs(machine.wall_s() - clock.wall_s()) > 0.001:
        before_s = clock.wall_s()
        machine.advance(10.0)
        assert clock.wall_s() > before_s


def test_a_clock_that_is_right_is_told_as_it_is() -> None:
    """Nothing is added where nothing is wrong."""
    machine = FakeClock()
    clock = SteadyClock(machine)
    machine.advance(3600.0)
    assert clock.wall_s() == pytest.approx(machine.wall_s(), abs=1e-6)
    assert clock.mono_s() == machine.mono_s()

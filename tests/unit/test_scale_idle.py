"""A pool that nobody calls goes to nothing, whatever else its machines are busy with."""

from __future__ import annotations

import pytest

from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import ClaimState, Decision, LaneSeen, MachineSeen, Observation, Rung
from tasks.invocation import Lane

POLICY = ScalePolicy("builders", (Rung("near"),), min_machines=0, settle_s=60.0, idle_to_zero_s=60.0)
EVERY_S = 30.0


def test_an_idle_pool_goes_to_nothing_though_its_processors_are_busy() -> None:
    """What keeps a machine busy or full without calls is not what it is paid for, so it does not hold it."""
    assert _target_after_ten_looks(running=0) == 0


def test_busy_processors_hold_the_machines_of_a_pool_that_is_called() -> None:
    """Calls that need more than their slots say keep the machines that they make busy."""
    assert _target_after_ten_looks(running=1) == 2


@pytest.mark.parametrize(("cpu", "memory"), [(0.98, 0.5), (0.4, 0.95)])
def test_a_machine_that_carries_no_call_goes_though_others_are_busy(cpu: float, memory: float) -> None:
    """One machine works at its limit for ever and nothing waits: the idle one beside it is not paid for as long."""
    decisions = _decisions(running=1, idle_s=120.0, cpu=cpu, memory=memory)
    assert decisions[-1].target == 1
    shrunk = next(decision for decision in decisions if decision.target == 1)
    assert shrunk.victims == ("b",)
    assert "carries none of it" in shrunk.reasons[-1].text


def test_a_machine_that_was_busy_just_now_is_held_by_busy_processors() -> None:
    """Calls are spread over a pool: its next one may come in a second."""
    assert _decisions(running=1, idle_s=59.0)[-1].target == 2


def test_an_idle_machine_stays_where_the_others_would_call_it_back() -> None:
    """Three of eight slots in use at full processors order a second machine: it is not let go and ordered by turns."""
    assert {decision.target for decision in _decisions(running=3, idle_s=120.0)} == {2}


def test_an_idle_machine_with_time_paid_for_lets_no_busy_one_go() -> None:
    """Billed by the hour, the busy one is at the end of its hour and would be chosen: its processors are in use."""
    decisions = _decisions(running=1, idle_s=120.0, billing_s=3600.0, paid_left_s=(300.0, 2000.0))
    assert {(decision.target, decision.victims, decision.cordon) for decision in decisions} == {(2, (), ())}


def test_an_idle_machine_goes_at_the_end_of_its_paid_hour_though_others_are_busy() -> None:
    """It is the one that is chosen, and it carries nothing."""
    decisions = _decisions(running=1, idle_s=120.0, billing_s=3600.0, paid_left_s=(2000.0, 300.0))
    assert ("b",) in [decision.victims for decision in decisions]


def _decisions(
    *,
    running: int,
    idle_s: float,
    cpu: float = 0.98,
    memory: float = 0.95,
    billing_s: float = 1.0,
    paid_left_s: tuple[float | None, float | None] = (None, None),
) -> list[Decision]:
    """Twenty looks at a pool of two, of which one holds all the calls; who goes is gone by the next look."""
    busy = MachineSeen("a", "builders-a", ClaimState.READY, held=running, age_s=900.0, paid_left_s=paid_left_s[0])
    idle = MachineSeen("b", "builders-b", ClaimState.READY, idle_s=idle_s, age_s=900.0, paid_left_s=paid_left_s[1])
    history, decisions, machines = History(), list[Decision](), (busy, idle)
    for look in range(20):
        lane = LaneSeen(
            slots=8 * len(machines), slots_per_machine=8, running=running, arrivals_per_s=0.01 * running,
            service_mean_s=5.0,
        )  # fmt: skip
        seen = Observation(
            "builders", look * EVERY_S, {Lane.TOOLS: lane}, machines, cpu=cpu, memory=memory, billing_s=billing_s
        )
        decision = decide(seen, POLICY, history)
        history = history.after(seen, decision, POLICY)
        decisions.append(decision)
        machines = tuple(machine for machine in machines if machine.claim not in decision.victims)
    return decisions


def _target_after_ten_looks(running: int) -> int:
    machines = tuple(
        MachineSeen(name, f"builders-{name}", ClaimState.READY, held=min(running, 1 - number), age_s=900.0)
        for number, name in enumerate("ab")
    )
    lane = LaneSeen(slots=16, slots_per_machine=8, running=running, arrivals_per_s=0.01 * running, service_mean_s=5.0)
    history, target = History(), len(machines)
    for look in range(10):
        seen = Observation("builders", look * EVERY_S, {Lane.TOOLS: lane}, machines[:target], cpu=0.98, memory=0.95)
        decision = decide(seen, POLICY, history)
        history, target = history.after(seen, decision, POLICY), decision.target
    return target

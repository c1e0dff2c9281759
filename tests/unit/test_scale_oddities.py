"""Decisions of what should never be seen, and was: odd numbers, lanes that are not served, a clock that is set back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.scale_policy import ScalePolicy, ScaleStrategy
from orchestrator.autoscaler.values import ClaimState, Decision, LaneSeen, MachineSeen, Observation, Rung
from tasks.invocation import Lane

POLICY = ScalePolicy("p", (Rung("near"),), min_machines=1, max_machines=4, use_season=False)
BUSY = LaneSeen(waiting=50, running=8, slots=8, slots_per_machine=8, service_mean_s=2.0, arrivals_per_s=9.0)
QUIET = LaneSeen(slots=24, slots_per_machine=8, service_mean_s=1.0)
AT = 1_000_000.0


def machines(number: int) -> tuple[MachineSeen, ...]:
    """Ready ones, idle for long."""
    return tuple(MachineSeen(f"c{n}", f"p-c{n}", ClaimState.READY, idle_s=5000.0, age_s=9000.0) for n in range(number))


def seen(lanes: Mapping[Lane, LaneSeen], *, number: int = 1, at: float = AT, others: int = 0) -> Observation:
    """One look."""
    return Observation("p", at, lanes=lanes, machines=machines(number), others=others)


def watched(history: History, look: Observation, policy: ScalePolicy, for_s: float) -> tuple[History, list[Decision]]:
    """The same for so long, every five seconds."""
    decisions = []
    for step in range(int(for_s // 5) + 1):
        now = replace(look, at=look.at + 5.0 * step)
        decision = decide(now, policy, history)
        history = history.after(now, decision, policy)
        decisions.append(decision)
    return history, decisions


ODD = {
    "nothing is known": LaneSeen(),
    "no time at all": replace(BUSY, service_mean_s=0.0),
    "a backlog of a billion": replace(BUSY, waiting=10**9),
    "a rate of a billion": replace(BUSY, arrivals_per_s=1e9),
    "calls of a year": replace(BUSY, service_mean_s=3e7),
    "a spread beyond measure": replace(BUSY, service_scv=1e12),
    "machines without a slot": replace(BUSY, slots_per_machine=0),
    "no slots": replace(BUSY, slots=0, running=0),
    "more running than slots": replace(BUSY, running=800),
    "a call of the future": replace(BUSY, oldest_wait_s=-5.0),
}


@pytest.mark.parametrize("strategy", list(ScaleStrategy))
@pytest.mark.parametrize("lane", list(Lane))
@pytest.mark.parametrize("odd", list(ODD.values()), ids=list(ODD))
def test_no_observation_is_too_odd_to_decide(odd: LaneSeen, lane: Lane, strategy: ScaleStrategy) -> None:
    """Whatever is seen there is a decision within the limits, also where nothing but foreign nodes is there."""
    for policy in (POLICY, replace(POLICY, min_machines=4), replace(POLICY, budget_eur_h=0.001)):
        for number, others in ((0, 0), (0, 3), (1, 0), (4, 0)):
            look = seen({lane: odd}, number=number, others=others)
            decision = decide(look, replace(policy, strategy=strategy), History())
            assert 0 <= decision.target <= policy.max_machines
            if policy.budget_eur_h is not None:  # no price is known: nothing is bought
                assert decision.target <= number


def test_a_clock_that_was_set_back_does_not_keep_a_fleet_large() -> None:
    """What was needed at a time that is yet to come is no reason to keep machines until then."""
    policy = replace(POLICY, settle_s=60.0, idle_to_zero_s=60.0, min_machines=0)
    history, _ = watched(History(), seen({Lane.TOOLS: BUSY}, number=3, at=AT + 86_400.0), policy, 120.0)
    _, decisions = watched(history, seen({Lane.TOOLS: QUIET}, number=3, at=AT), policy, 200.0)
    assert [decisions[step].target for step in (0, -1)] == [3, 2]


def test_a_clock_that_was_set_back_does_not_stretch_a_cooldown() -> None:
    """`threshold` waits its five minutes, not a day and five minutes."""
    policy = replace(POLICY, strategy=ScaleStrategy.THRESHOLD)
    changed = History(changed_at=AT + 86_400.0, looked_at=AT + 86_400.0)
    _, decisions = watched(changed, seen({Lane.TOOLS: BUSY}), policy, 400.0)
    assert decisions[0].target == 1
    assert 2 in {decision.target for decision in decisions}

"""A pool that nobody calls goes to nothing, whatever else its machines are busy with."""

from __future__ import annotations

from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import ClaimState, LaneSeen, MachineSeen, Observation, Rung
from tasks.invocation import Lane

POLICY = ScalePolicy("builders", (Rung("near"),), min_machines=0, settle_s=60.0, idle_to_zero_s=60.0)
EVERY_S = 30.0


def test_an_idle_pool_goes_to_nothing_though_its_processors_are_busy() -> None:
    """What keeps a machine busy or full without calls is not what it is paid for, so it does not hold it."""
    assert _target_after_ten_looks(running=0) == 0


def test_busy_processors_hold_the_machines_of_a_pool_that_is_called() -> None:
    """Calls that need more than their slots say keep the machines that they make busy."""
    assert _target_after_ten_looks(running=1) == 2


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

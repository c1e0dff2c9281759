"""A pool without a call on a host that is busy with other things."""

from __future__ import annotations

import pytest

from orchestrator.autoscaler.decide import decide
from orchestrator.autoscaler.history import History
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import ClaimState, LaneSeen, MachineSeen, Observation, Rung
from tasks.invocation import Lane

POLICY = ScalePolicy("p", (Rung("cloud"),), min_machines=0, settle_s=60.0, idle_to_zero_s=90.0, use_season=False)
EVERY_S = 5.0


def _decided(running: int, seconds: float) -> tuple[int, list[str]]:
    """The target of two machines whose processors and memory are full, after so long; its rules."""
    history, at = History(), 1000.0
    while True:
        machines = tuple(
            MachineSeen(str(n), f"p-{n}", ClaimState.READY, held=min(1, running), idle_s=seconds) for n in range(2)
        )
        lane = LaneSeen(running=running, slots=8, slots_per_machine=4, service_mean_s=1.0)
        seen = Observation("p", at, lanes={Lane.TOOLS: lane}, machines=machines, cpu=1.0, memory=0.95)
        decision = decide(seen, POLICY, history)
        if at - 1000.0 >= seconds:
            return decision.target, [reason.rule for reason in decision.reasons]
        history, at = history.after(seen, decision, POLICY), at + EVERY_S


def test_an_idle_pool_shrinks_though_its_host_is_busy() -> None:
    """Machines without a call do not cure it, and are let go after the usual times, to the last."""
    assert _decided(running=0, seconds=50.0)[0] == 2
    assert _decided(running=0, seconds=65.0)[0] == 1


@pytest.mark.parametrize("running", [1, 2])
def test_a_pool_at_work_keeps_its_machines_while_they_are_full(running: int) -> None:
    """Then fewer machines would be fuller."""
    target, rules = _decided(running=running, seconds=65.0)
    assert (target, rules[-1]) == (2, "hold")

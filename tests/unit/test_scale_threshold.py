"""The strategy `threshold`, trigger by trigger, as its operator wrote it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.scale_policy import ScalePolicy, ScaleStrategy
from orchestrator.autoscaler.values import ClaimState, LaneSeen, MachineSeen, Observation, Rung
from tasks.invocation import Lane

AT = 1000.0
POLICY = ScalePolicy("p", (Rung("local"),), strategy=ScaleStrategy.THRESHOLD)


@dataclass(frozen=True)
class Case:
    """What is seen, and the target of a pool that has `machines`."""

    name: str
    machines: int
    target: int
    running: int = 20
    waiting: int = 0
    wait_p95_s: float = 0.1
    errors: float = 0.0
    cpu: float = 0.5
    cpu_since: float | None = None
    memory: float = 0.5
    changed_at: float | None = None
    says: str = ""


CASES = (
    Case("half in use stays", 5, 5),
    Case("70 % in use stays", 5, 5, running=28),
    Case("over 70 % in use grows by half", 5, 8, running=29, says="utilisation 72% is over 70%: 50% more, 8 machines"),
    Case("half of one is one more", 1, 2, running=8),
    Case("never over ten", 9, 10, running=72),
    Case("under 30 % loses one", 5, 4, running=11, says="utilisation 28% is under 30%: one less, 4 machines"),
    Case("30 % stays", 5, 5, running=12),
    Case("never under one", 1, 1, running=0),
    Case("CPU for less than 5 min stays", 5, 5, cpu=0.9, cpu_since=AT - 299.0),
    Case("CPU for 5 min grows", 5, 8, cpu=0.71, cpu_since=AT - 300.0, says="CPU 71% is over 70% for 300 s"),
    Case("CPU of 70 % stays", 5, 5, cpu=0.70, cpu_since=AT - 900.0),
    Case("memory grows at once", 5, 8, memory=0.81, says="memory 81% is over 80%"),
    Case("memory of 80 % stays", 5, 5, memory=0.80),
    Case("101 waiting grow", 5, 8, waiting=101, says="101 calls wait, more than 100"),
    Case("100 waiting stay", 5, 5, waiting=100),
    Case("p95 over 5 s grows", 5, 8, wait_p95_s=5.1, says="tools p95 wait 5.1 s is over 5 s"),
    Case("p95 of 5 s stays", 5, 5, wait_p95_s=5.0),
    Case("errors alone stay", 5, 5, errors=0.5),
    Case("errors with no room grow", 5, 8, errors=0.02, running=40, says="tools errors 2.0% are over 1.0%"),
    Case("a trigger beats low use", 5, 8, running=0, memory=0.9),
    Case("within the cooldown nothing grows", 5, 5, running=40, changed_at=AT - 299.0, says="too recent: 1 s more"),
    Case("within the cooldown nothing shrinks", 5, 5, running=0, changed_at=AT - 299.0),
    Case("after the cooldown it grows", 5, 8, running=40, changed_at=AT - 300.0),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_trigger_is_kept_to_the_letter(case: Case) -> None:
    """Limits are passed only when passed, times are whole, and the reason names the trigger."""
    lane = LaneSeen(
        waiting=case.waiting,
        running=case.running,
        slots=8 * case.machines,
        slots_per_machine=8,
        wait_p95_s=case.wait_p95_s,
        error_rate=case.errors,
    )
    ready = tuple(MachineSeen(f"c{index}", f"p-c{index}", ClaimState.READY) for index in range(case.machines))
    seen = Observation("p", AT, {Lane.TOOLS: lane}, ready, cpu=case.cpu, memory=case.memory)
    held = {} if case.cpu_since is None else {"cpu": case.cpu_since}
    decision = decide(seen, POLICY, History(held_since=held, changed_at=case.changed_at))
    assert decision.target == case.target
    assert case.says in " / ".join(reason.text for reason in decision.reasons)


def test_the_clock_of_a_trigger_runs_only_while_it_holds() -> None:
    """CPU that falls below its limit once begins its five minutes anew."""
    seen = Observation("p", AT, {Lane.TOOLS: LaneSeen()}, cpu=0.9)
    history = History()
    for step, cpu in enumerate((0.9, 0.9, 0.5, 0.9)):
        now = replace(seen, at=AT + 100.0 * step, cpu=cpu)
        history = history.after(now, decide(now, POLICY, history), POLICY)
    assert history.held_s("cpu", AT + 300.0) == 0.0

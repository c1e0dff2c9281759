"""Release, lease, inventory, journal and settlement under any order of steps and faults.

Deliveries are lost, doubled, delayed and reordered; renewals and their replies too; nodes and leaders
die at any point. Each planted bug leaves out one rule and has to be caught.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from orchestrator import assembly
from orchestrator.dispatch.open_attempts import OpenAttempts
from orchestrator.registry import desk as desk_module
from orchestrator.registry import inventory
from orchestrator.testing.memory_ledger import LedgerFlaw
from orchestrator.testing.protocol import SAFE, UNSAFE
from tasks.errors import WrongState
from tasks.invocation import Lane
from tests.model.machine import ProtocolMachine
from tests.model.world import NAMES, Planted
from worker.testing.model_node import SEEN_MAX, NodeFlaw

if TYPE_CHECKING:
    from orchestrator.ledger.values import Outstanding


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of histories would log for minutes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


QUIET = dict.fromkeys(["deadline", "database"])
TestProtocolMachine = ProtocolMachine.TestCase
TestProtocolMachine.settings = settings(
    max_examples=60, stateful_step_count=60, suppress_health_check=list(HealthCheck), **cast("Any", QUIET)
)


# ---------------------------------------------------------------------------------- planted bugs


class Tally(OpenAttempts):
    """Credit as a counter in this process: what an earlier leader released is not in it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_counting = False
        self.counted: set[tuple[str, int]] = set()

    def begin(self) -> None:
        """What was read at the start is over."""
        self.is_counting = True

    def add(self, attempt: Outstanding) -> None:
        """A release took."""
        super().add(attempt)
        if self.is_counting:
            self.counted.add((attempt.invocation_id, attempt.fence))

    def held(self, node: str, lane: Lane) -> int:
        """As counted."""
        return sum(1 for a in self.of_node(node) if a.lane is lane and (a.invocation_id, a.fence) in self.counted)

    def held_by_node(self, lane: Lane) -> Mapping[str, int]:
        """As counted."""
        return {name: self.held(name, lane) for name in NAMES}


class Lenient(OpenAttempts):
    """Takes the word of any attempt for that of the current one."""

    def current(self, invocation_id: str, fence: int) -> Outstanding | None:
        """Whatever the fence."""
        del fence
        return self.get(invocation_id)


def hasty(*args: Any, **more: Any) -> inventory.Comparison:
    """What is missing once is released again."""
    found = inventory.compare(*args, **more)
    missing = [a for a in args[1] if (a.invocation_id, a.fence) in found.suspects]
    return inventory.Comparison(
        void=found.void,
        disowned=(*found.disowned, *missing),
        running=found.running,
        returned=found.returned,
        forgotten=found.forgotten,
    )


def trusting(*args: Any, **more: Any) -> inventory.Comparison:
    """Takes the node to know the newest term, whether it heard of it or not."""
    return inventory.compare(*args, **(more | {"heard_term": 1_000_000}))


CALLS = frozenset({"accept", "work", "finish"})
FOCUSED = {
    "renewals that are late": Planted(
        steps=CALLS | {"renew", "send_renewal", "move_renewal", "pass_time", "silence"}, tools=(UNSAFE,)
    ),
    "joins that are late": Planted(steps=CALLS | {"renew", "restart", "join_late", "pass_time"}, tools=(UNSAFE,)),
    "leaders that are late": Planted(
        steps=CALLS | {"renew", "send_renewal", "move_renewal", "change_leader", "act_as_before", "read", "pass_time"},
        tools=(UNSAFE,),
    ),
}
EXAMPLES = 150


@pytest.mark.parametrize("name", FOCUSED)
def test_the_promises_hold_where_a_search_looks_closely(name: str) -> None:
    """All steps at once seldom meet in the order that hurts; a few of them do."""
    searching = settings(
        max_examples=EXAMPLES,
        stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
        **cast("Any", QUIET),
    )
    run_state_machine_as_test(partial(ProtocolMachine, FOCUSED[name]), settings=searching)


PLANTED = {
    "settle without the fence check": Planted(
        ledger=frozenset({LedgerFlaw.SETTLE_WITHOUT_FENCE}),
        patches={(assembly, "OpenAttempts"): Lenient},
        steps=CALLS | {"blackout", "read"},
        nodes=1,
        tools=(SAFE,),
    ),
    "release without the epoch": Planted(
        ledger=frozenset({LedgerFlaw.RELEASE_WITHOUT_EPOCH}),
        steps=frozenset({"accept", "release", "change_leader", "act_as_before"}),
        nodes=1,
    ),
    "lease counted from receipt on the node": Planted(
        node=frozenset({NodeFlaw.LEASE_FROM_RECEIPT}),
        steps=frozenset({"accept", "deliver", "start", "send_renewal", "move_renewal", "pass_time"}),
        nodes=1,
    ),
    "journal dropped before the acknowledgement": Planted(
        node=frozenset({NodeFlaw.JOURNAL_DROPPED_EARLY}), steps=CALLS | {"renew", "pass_time"}, nodes=1
    ),
    "sweep after one inventory": Planted(
        patches={(desk_module, "compare"): hasty},
        steps=CALLS | {"renew", "pass_time"},
        nodes=1,
        tools=(UNSAFE,),
        seed=3,
    ),
    "an older term judged before the newer one was heard": Planted(
        patches={(desk_module, "compare"): trusting},
        steps=CALLS | {"renew", "send_renewal", "move_renewal", "pass_time"},
        tools=(UNSAFE,),
    ),
    "credit kept as a counter": Planted(
        patches={(assembly, "OpenAttempts"): Tally}, steps=CALLS | {"change_leader", "read"}
    ),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.timeout(600)  # a search: as long as it takes on a busy machine
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that cannot fail proves nothing."""
    planted = PLANTED[name]
    for (module, what), instead in planted.patches.items():
        monkeypatch.setattr(module, what, instead)
    searching = settings(
        max_examples=4000,
        stateful_step_count=25,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        **cast("Any", QUIET),
    )
    with pytest.raises((AssertionError, WrongState)):
        run_state_machine_as_test(seed(planted.seed)(partial(ProtocolMachine, planted)), settings=searching)


def test_an_old_delivery_that_comes_back_when_it_is_forgotten_is_caught() -> None:
    """The seventh: a snapshot of Redis brings back what ran before everything that its node remembers."""
    with pytest.raises(AssertionError, match="i0 was started at fence 1, and is succeeded"):
        _old_delivery_comes_back(ProtocolMachine(Planted(node=frozenset({NodeFlaw.NUMBERS_PASSED_OVER}), nodes=1)))
    _old_delivery_comes_back(ProtocolMachine(Planted(nodes=1)))


def _old_delivery_comes_back(machine: ProtocolMachine) -> None:
    for how in ["twice", *["once"] * (SEEN_MAX + 1)]:
        machine.accept(1)
        machine.deliver(0, len(machine.place(0).letters) - 1, how)
        machine.start(0)
        machine.finish(0, is_stream_lost=False)
        machine.read(0, is_acknowledged=True)
    machine.deliver(0, 0, "once")
    machine.start(0)
    machine.unsafe_work_starts_once()
    machine.teardown()

"""What becomes of an Invocation when an attempt ends: a table over `orchestrator.settling.verdict`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.ledger.values import Outstanding, Settlement
from orchestrator.settling.verdict import Circumstances, on_disowned, on_finished, on_lapsed, on_lost
from tasks.invocation import Lane, State
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.retry import RetryPolicy
from tasks.tool import OnNodeLoss

NOW = 1000.0


def attempt(tries: int = 0) -> Outstanding:
    """An open attempt after so many tries."""
    return Outstanding(
        invocation_id="x",
        fence=tries + 1,
        node="a1",
        incarnation="i",
        term=1,
        pool="general",
        lane=Lane.TOOLS,
        tool="t.x",
        project=None,
        state=State.RUNNING,
        released_at=NOW - 2,
        started_at=NOW - 1,
        expires_at=None,
        cancel_requested=False,
        tries=tries,
    )


def given(*, is_safe: bool = False, attempts: int = 3, retry_tool_errors: bool = False) -> Circumstances:
    """A policy, a tool, and a draw in the middle."""
    policy = RetryPolicy(attempts=attempts, retry_tool_errors=retry_tool_errors)
    on_loss = OnNodeLoss.RERUN if is_safe else OnNodeLoss.ASK
    return Circumstances(policy, is_safe, NOW, 0.5, on_node_loss=on_loss)


def ended(failure: Failure, *, tries: int = 0, retry_after_s: float | None = None, **how: bool) -> Settlement:
    """A node reported this failure."""
    error = ErrorInfo("some_code", "what happened", failure, retry_after_s)
    outcome = Outcome("failed", result_json='{"content":[]}', error=error)
    return on_finished(attempt(tries), outcome, node="a1", ended_at=NOW, started_at=NOW - 1, given=given(**how))


@pytest.mark.parametrize(
    ("failure", "is_safe", "tries", "to", "dead"),
    [
        (Failure.NOT_STARTED, False, 0, State.WAITING, None),
        (Failure.NOT_STARTED, False, 2, State.FAILED, "retries_exhausted"),
        (Failure.MAYBE_STARTED, True, 0, State.WAITING, None),
        (Failure.MAYBE_STARTED, True, 2, State.FAILED, "retries_exhausted"),
        (Failure.MAYBE_STARTED, False, 0, State.FAILED, "unsafe_to_repeat"),
        (Failure.WAIT_UNTIL, False, 2, State.WAITING, None),
        (Failure.TOOL_ERROR, True, 0, State.FAILED, "tool_error"),
        (Failure.PERMANENT, True, 0, State.FAILED, "permanent"),
        (Failure.POISON, True, 0, State.FAILED, "poison"),
    ],
)
def test_a_failure_is_repeated_only_where_its_class_allows(
    failure: Failure, is_safe: bool, tries: int, to: State, dead: str | None
) -> None:
    """The retry classes hold, and what is given up says why."""
    settlement = ended(failure, tries=tries, is_safe=is_safe)
    assert (settlement.to, settlement.dead_reason) == (to, dead)
    assert (settlement.outcome is None) == (to is State.WAITING)


def test_a_tool_error_is_repeated_where_declared() -> None:
    """`retry_tool_errors` makes `isError` an error like another."""
    assert ended(Failure.TOOL_ERROR, retry_tool_errors=True).to is State.WAITING


def test_waiting_for_a_quota_costs_no_try() -> None:
    """Wait-until is not a failure of the call."""
    settlement = ended(Failure.WAIT_UNTIL, retry_after_s=90.0)
    assert (settlement.counts_try, settlement.not_before) == (False, NOW + 90.0)


def test_retry_after_is_honoured_where_it_is_longer_than_the_backoff() -> None:
    """429 with Retry-After waits at least that long."""
    assert ended(Failure.NOT_STARTED, retry_after_s=40.0).not_before == NOW + 40.0


def test_success_carries_its_outcome_and_counts_one_try() -> None:
    """The tool's content is kept as it came."""
    outcome = Outcome("succeeded", result_json="{}")
    settlement = on_finished(attempt(), outcome, node="a1", ended_at=NOW, started_at=NOW - 1, given=given())
    assert (settlement.to, settlement.outcome, settlement.counts_try) == (State.SUCCEEDED, outcome, True)


def test_a_lapsed_lease_supersedes_safe_work_and_waits_for_other() -> None:
    """Work that may have started is never silently rerun unless it is safe."""
    safe = on_lapsed(attempt(), given=given(is_safe=True), code="node_lost", message="gone")
    other = on_lapsed(attempt(), given=given(), code="node_lost", message="gone")
    assert (safe.to, other.to) == (State.WAITING, State.UNREACHABLE)


@pytest.mark.parametrize(("losses", "waits"), [(0, False), (1, True)])
def test_what_lost_its_first_node_goes_elsewhere_at_once(losses: int, waits: bool) -> None:
    """One machine that dies says nothing about the call; a second one under it is a reason to wait."""
    told = replace(given(is_safe=True), losses=losses, draw=0.5)
    settlement = on_lapsed(attempt(), given=told, code="node_lost", message="gone")
    assert (settlement.to, settlement.counts_try) == (State.WAITING, False)
    assert (settlement.not_before is not None) is waits


def test_lost_is_the_end_of_unsafe_work_only() -> None:
    """Unknown effects are said to be unknown, with a dead letter."""
    safe = on_lost(attempt(), given=given(is_safe=True), code="node_lost", message="gone")
    other = on_lost(attempt(), given=given(), code="node_lost", message="gone")
    assert safe.to is State.WAITING
    assert (other.to, other.dead_reason, other.outcome and other.outcome.ending) == (State.LOST, "node_lost", "lost")


@pytest.mark.parametrize(
    ("declared", "lapsed", "lost"),
    [
        (OnNodeLoss.RERUN, State.WAITING, State.WAITING),
        (OnNodeLoss.FAIL, State.UNREACHABLE, State.FAILED),
        (OnNodeLoss.ASK, State.UNREACHABLE, State.LOST),
    ],
)
@pytest.mark.parametrize("is_safe", [True, False])
def test_what_is_declared_for_a_lost_node_is_done(
    declared: OnNodeLoss, lapsed: State, lost: State, is_safe: bool
) -> None:
    """Whether it is safe decides only what is not declared."""
    told = replace(given(is_safe=is_safe), on_node_loss=declared)
    assert on_lapsed(attempt(), given=told, code="node_lost", message="gone").to is lapsed
    end = on_lost(attempt(), given=told, code="node_lost", message="gone")
    assert end.to is lost
    assert (end.dead_reason is None) == (lost is State.WAITING)


def test_what_never_started_costs_no_try() -> None:
    """A lost delivery is released again at once."""
    settlement = on_disowned(attempt(), now_s=NOW)
    assert (settlement.to, settlement.counts_try, settlement.not_before) == (State.WAITING, False, None)


def test_a_safe_call_that_killed_its_worker_twice_is_poison() -> None:
    """The third node is spared: two deaths during one call are no coincidence."""
    once = on_lost(attempt(), given=given(is_safe=True), code="node_restarted", message="died")
    again = replace(given(is_safe=True), deaths=1)
    twice = on_lost(attempt(1), given=again, code="node_restarted", message="died")
    network = on_lost(attempt(1), given=again, code="node_lost", message="gone")
    assert (once.to, twice.to, twice.dead_reason) == (State.WAITING, State.FAILED, "poison")
    assert network.to is State.WAITING

"""Settling: exactly once, at the current fence, from the right node, with all that follows from it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.ledger.dead_values import DeadFilter
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, BROKEN, accepted, again, failure, new, released, success, unreachable
from orchestrator.ledger.values import Settled, Started
from tasks.errors import NotFound
from tasks.invocation import OUTSTANDING, State
from tasks.outcome import ErrorInfo, Failure, Outcome


async def one_released(ledger: Ledger, **call: object) -> str:
    """An Invocation at node n1, fence 1."""
    (one,) = await accepted(ledger, new(**call))
    await released(ledger, [one])
    return one


async def test_a_success_keeps_its_result(ledger: Ledger) -> None:
    """The outcome, the end and the attempt's times are what the node said."""
    one = await one_released(ledger)
    assert await ledger.settle([success(one)]) == [Settled(one, 1, took=True, state=State.SUCCEEDED)]
    invocation = await ledger.get(one)
    assert invocation.outcome == Outcome("succeeded", result_json='{"content":[]}')
    assert (invocation.state, invocation.ended_at, invocation.tries) == (State.SUCCEEDED, AT + 2, 1)
    (attempt,) = invocation.attempts
    assert (attempt.ending, attempt.started_at, attempt.ended_at) == ("succeeded", AT + 1, AT + 2)
    assert await ledger.outstanding() == []


async def test_a_failure_is_kept_as_a_dead_letter(ledger: Ledger) -> None:
    """What ended badly is found by its reason, with its error."""
    one = await one_released(ledger, project="shop")
    await ledger.settle([failure(one, reason="retries_exhausted")])
    invocation = await ledger.get(one)
    assert invocation.outcome == Outcome("failed", error=BROKEN)
    assert invocation.attempts[0].error_code == BROKEN.code
    (dead,), _ = await ledger.dead_letters(tenant="default", where=DeadFilter(reason="retries_exhausted"))
    assert (dead.invocation_id, dead.ending, dead.error, dead.project) == (one, "failed", BROKEN, "shop")


async def test_a_big_result_is_kept_by_reference(ledger: Ledger) -> None:
    """A result over the inline limit is named, not stored."""
    one = await one_released(ledger)
    outcome = Outcome("succeeded", result_blob="sha256-2")
    await ledger.settle([replace(success(one), outcome=outcome)])
    assert (await ledger.get(one)).outcome == outcome


async def test_a_retry_waits_for_its_time(ledger: Ledger) -> None:
    """It waits again at the same fence, one try used; the next release is the next fence."""
    one = await one_released(ledger)
    await ledger.settle([again(one, not_before=AT + 30)])
    (waiting,) = await ledger.waiting()
    assert (waiting.id, waiting.fence, waiting.tries, waiting.not_before) == (one, 1, 1, AT + 30)
    assert (await ledger.get(one)).attempts[0].ending == "failed"
    (second,) = await released(ledger, [one], fence=1)
    assert (second.fence, second.tries) == (2, 1)


async def test_the_first_word_about_the_start_counts(ledger: Ledger) -> None:
    """What the node said when it started stands, whatever the report of the end says."""
    first, second = await accepted(ledger, new(), new())
    await released(ledger, [first, second])
    await ledger.mark_started([Started(first, 1, "n1", AT + 0.5)])
    await ledger.settle([success(first), success(second)])
    assert [(await ledger.get(one)).attempts[0].started_at for one in (first, second)] == [AT + 0.5, AT + 1]


async def test_a_disowned_attempt_costs_no_try(ledger: Ledger) -> None:
    """What never started is released again for free, and its attempt says why."""
    one = await one_released(ledger)
    await ledger.settle([replace(again(one, node=None), counts_try=False, attempt_ending="disowned", not_before=None)])
    invocation = await ledger.get(one)
    assert (invocation.state, invocation.tries) == (State.WAITING, 0)
    assert invocation.attempts[0].ending == "disowned"


async def test_unreachable_leaves_the_attempt_open(ledger: Ledger) -> None:
    """The node may come back with it: nothing has ended, and its word still counts."""
    one = await one_released(ledger)
    assert (await ledger.settle([unreachable(one)]))[0].state is State.UNREACHABLE
    (outstanding,) = await ledger.outstanding()
    assert outstanding.state is State.UNREACHABLE
    assert (await ledger.get(one)).attempts[0].ended_at is None
    assert [s.took for s in await ledger.settle([unreachable(one)])] == [False]
    assert [s.took for s in await ledger.settle([success(one)])] == [True]


@pytest.mark.parametrize(
    ("fence", "node"), [(0, "n1"), (2, "n1"), (1, "n2"), (0, None)], ids=["old", "future", "other node", "old, own"]
)
async def test_a_settlement_of_another_attempt_is_refused(ledger: Ledger, fence: int, node: str | None) -> None:
    """A stale fence or a wrong node changes nothing, whatever it claims."""
    one = await one_released(ledger)
    before = await ledger.get(one)
    for wanted in (success, failure, again):
        answer = await ledger.settle([wanted(one, fence=fence, node=node)])
        assert answer == [Settled(one, fence, took=False, state=State.RELEASED)]
    assert await ledger.get(one) == before


async def test_the_second_end_is_refused(ledger: Ledger) -> None:
    """One outcome per Invocation, also when both ends arrive in one call or one group."""
    one = await one_released(ledger)
    answers = await asyncio.gather(ledger.settle([success(one), failure(one)]), ledger.settle([again(one)]))
    taken = [settled for answer in answers for settled in answer if settled.took]
    assert len(taken) == 1
    invocation = await ledger.get(one)
    assert invocation.state is taken[0].state
    assert [s.took for s in await ledger.settle([success(one, node=None)])] == [invocation.state in OUTSTANDING]


async def test_an_unknown_invocation_is_lost(ledger: Ledger) -> None:
    """A report about nothing is answered, so that its sender can forget it."""
    assert await ledger.settle([success("unknown")]) == [Settled("unknown", 1, took=False, state=State.LOST)]


async def test_a_cancelled_invocation_is_not_tried_again(ledger: Ledger) -> None:
    """A retry of what was asked to stop ends it, and says after which error."""
    one = await one_released(ledger)
    await ledger.cancel(one, None, AT + 1)
    (settled,) = await ledger.settle([again(one)])
    invocation = await ledger.get(one)
    assert settled == Settled(one, 1, took=True, state=State.CANCELLED, outcome=invocation.outcome)
    assert invocation.state is State.CANCELLED
    assert invocation.outcome is not None
    assert invocation.outcome.error is not None
    assert invocation.outcome.error.code == "cancelled"
    assert BROKEN.message in invocation.outcome.error.message
    assert invocation.attempts[0].ending == "failed"
    assert await ledger.waiting() == []


async def test_a_cancelled_invocation_may_still_succeed(ledger: Ledger) -> None:
    """A tool that was done before the cancel reached it has done its work."""
    one = await one_released(ledger)
    await ledger.cancel(one, None, AT + 1)
    assert (await ledger.settle([success(one)]))[0].state is State.SUCCEEDED


async def test_successors_come_with_the_settlement(ledger: Ledger) -> None:
    """The next call of a chain is accepted in the same commit."""
    one = await one_released(ledger)
    following = new()
    await ledger.settle([success(one, successors=(following,))])
    assert [waiting.id for waiting in await ledger.waiting()] == [following.invocation.id]


async def test_successors_of_a_refused_settlement_are_not_accepted(ledger: Ledger) -> None:
    """A stale node cannot start the rest of a chain."""
    one = await one_released(ledger)
    following = new()
    await ledger.settle([success(one, fence=7, successors=(following,))])
    with pytest.raises(NotFound):
        await ledger.get(following.invocation.id)


async def test_a_known_successor_does_not_stop_the_settlement(ledger: Ledger) -> None:
    """An outcome is never kept out by what follows it."""
    one = await one_released(ledger)
    known, fresh = new(), new()
    await ledger.accept([known])
    assert [s.took for s in await ledger.settle([success(one, successors=(known, fresh))])] == [True]
    assert {waiting.id for waiting in await ledger.waiting()} == {known.invocation.id, fresh.invocation.id}


async def test_unprintable_error_text_is_kept_readable(ledger: Ledger) -> None:
    """A node's error text never keeps its outcome out of the ledger."""
    one = await one_released(ledger)
    error = ErrorInfo("crashed", "exit\0 \ud800 status", Failure.PERMANENT)
    wanted = replace(failure(one), error=error, outcome=Outcome("failed", error=error))
    assert [s.took for s in await ledger.settle([wanted])] == [True]
    assert (await ledger.get(one)).attempts[0].error_message == "exit ? status"


async def test_an_impossible_settlement_fails_alone(ledger: Ledger) -> None:
    """A settlement to a state that no attempt ends in is refused, its neighbours take."""
    first, second = await accepted(ledger, new(), new())
    await released(ledger, [first, second])
    answers = await asyncio.gather(
        ledger.settle([replace(success(first), to=State.RUNNING)]),
        ledger.settle([success(second)]),
        return_exceptions=True,
    )
    assert isinstance(answers[0], ValueError)
    assert answers[1] == [Settled(second, 1, took=True, state=State.SUCCEEDED)]


async def test_many_settlements_answer_in_order(ledger: Ledger) -> None:
    """Each answer stands where its settlement stood, whatever kinds are mixed."""
    ids = await accepted(ledger, *(new() for _ in range(9)))
    await released(ledger, ids)
    wanted = [kind(one) for one, kind in zip(ids, (success, again, failure) * 3, strict=True)]
    wanted.insert(4, success("unknown"))
    answers = await ledger.settle(wanted)
    assert [(one.invocation_id, one.took) for one in answers] == [
        (w.invocation_id, w.invocation_id != "unknown") for w in wanted
    ]
    assert [one.state for one in answers if one.took] == [w.to for w in wanted if w.invocation_id != "unknown"]

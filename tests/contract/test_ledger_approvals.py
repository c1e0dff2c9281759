"""Questions to people in the ledger: kept once, answered once, to just what was asked, while it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.ledger.approval_values import NewAnswer, NewApproval
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, accepted, new, released, success
from orchestrator.ledger.values import Purge
from tasks.approval import ApprovalState, Taken, Verdict, canonical, digest
from tasks.errors import AlreadyAnswered, ApprovalOver, FleetError, NotFound, OtherArguments
from tasks.testing.clock import FakeClock

ARGUMENTS = canonical({"command": "rm -r build \0 \u202e"})
YES = NewAnswer(Verdict.ALLOW, digest(ARGUMENTS), "ann", AT + 10)
NO = replace(YES, verdict=Verdict.DENY, reason="not on a Friday\0")


def _asked(invocation: str, **other: object) -> NewApproval:
    asked = NewApproval("q1", invocation, 1, "n1", "Bash", AT, AT + 60, False, digest(ARGUMENTS), ARGUMENTS)
    return replace(asked, **other)  # type: ignore[arg-type]


async def _open(ledger: Ledger) -> str:
    (one,) = await accepted(ledger, new(project="shop"))
    await released(ledger, [one])
    return one


async def test_a_question_is_kept_once(ledger: Ledger) -> None:
    """Told again, it is the same row; with all that a person needs to judge it."""
    one = await _open(ledger)
    first, is_new = await ledger.ask_approval(_asked(one))
    again, is_new_again = await ledger.ask_approval(_asked(one))
    assert (is_new, is_new_again) == (True, False)
    assert first == again == await ledger.approval("q1", "default")
    assert first is not None
    assert (first.question.arguments_json, first.fleet_tool, first.project) == (ARGUMENTS, "git.git_log", "shop")
    assert first.state(AT + 1) is ApprovalState.WAITING
    assert [row.question.id for row in await ledger.open_approvals()] == ["q1"]


@pytest.mark.parametrize("other", [{"fence": 2}, {"node": "n2"}, {"invocation_id": "unknown"}])
async def test_a_question_of_a_superseded_attempt_is_refused(ledger: Ledger, other: dict[str, object]) -> None:
    """An old fence, another node, or nothing that is known: nobody is asked."""
    one = await _open(ledger)
    assert await ledger.ask_approval(replace(_asked(one), **other)) == (None, False)  # type: ignore[arg-type]
    assert await ledger.approvals(None, frozenset(), None, 10) == ([], None)


async def test_another_nodes_question_is_not_taken_over(ledger: Ledger) -> None:
    """An id that stands for another node's question is refused."""
    one = await _open(ledger)
    await ledger.ask_approval(_asked(one))
    (two,) = await accepted(ledger, new(project="shop"))
    await released(ledger, [two], node="n2")
    assert await ledger.ask_approval(_asked(two, node="n2")) == (None, False)


async def test_an_answer_stands(ledger: Ledger) -> None:
    """The same again is fine, also late; another one is refused, and so is one by another tenant."""
    one = await _open(ledger)
    await ledger.ask_approval(_asked(one))
    row, is_first = await ledger.answer_approval("q1", "default", NO)
    again, is_first_again = await ledger.answer_approval("q1", "default", replace(NO, at=AT + 999, by="bob"))
    assert (is_first, is_first_again) == (True, False)
    assert row == again
    assert (row.answer, row.answered_by, row.reason) == (Verdict.DENY, "ann", "not on a Friday")
    with pytest.raises(AlreadyAnswered, match="by ann"):
        await ledger.answer_approval("q1", "default", YES)
    with pytest.raises(NotFound):
        await ledger.answer_approval("q1", "acme", NO)
    assert (await ledger.open_approvals())[0].answer is Verdict.DENY


async def test_an_answer_to_other_arguments_is_none(ledger: Ledger) -> None:
    """The digest says what was seen."""
    one = await _open(ledger)
    await ledger.ask_approval(_asked(one))
    with pytest.raises(OtherArguments, match=digest(ARGUMENTS)):
        await ledger.answer_approval("q1", None, replace(YES, arguments_sha256=digest("{}")))
    assert (await ledger.approval("q1", None)).answer is None


@pytest.mark.parametrize(
    ("at", "has_ended", "why"), [(AT + 60, False, "its time was over"), (AT + 10, True, "has ended")]
)
async def test_what_nobody_waits_for_cannot_be_answered(ledger: Ledger, at: float, has_ended: bool, why: str) -> None:
    """Its time is over, or the attempt that asked is."""
    one = await _open(ledger)
    await ledger.ask_approval(_asked(one))
    if has_ended:
        await ledger.settle([success(one)])
    with pytest.raises(ApprovalOver, match=why) as refused:
        await ledger.answer_approval("q1", None, replace(YES, at=at))
    assert isinstance(refused.value, FleetError)
    assert (await ledger.open_approvals() == []) is has_ended


@pytest.mark.parametrize(
    ("answer", "taken", "ended", "now_s", "state"),
    [
        (None, None, False, AT + 1, ApprovalState.WAITING),
        (None, None, False, AT + 60, ApprovalState.EXPIRED),
        (None, None, True, AT + 60, ApprovalState.OVER),
        (None, Taken.EXPIRED, False, AT + 80, ApprovalState.EXPIRED),
        (YES, None, False, AT + 60, ApprovalState.ALLOWED),
        (YES, Taken.ALLOW, True, AT + 60, ApprovalState.ALLOWED),
        (YES, Taken.EXPIRED, False, AT + 80, ApprovalState.EXPIRED),
        (NO, Taken.DENY, False, AT + 60, ApprovalState.DENIED),
    ],
)
async def test_a_listing_by_state_and_a_row_say_the_same(  # noqa: PLR0917 - a table of cases
    ledger: Ledger,
    clock: FakeClock,
    answer: NewAnswer | None,
    taken: Taken | None,
    ended: bool,
    now_s: float,
    state: ApprovalState,
) -> None:
    """Whatever was said and done: one state, by the row and by the query."""
    one = await _open(ledger)
    await ledger.ask_approval(_asked(one))
    if answer is not None:
        await ledger.answer_approval("q1", None, answer)
    if taken is not None:
        await ledger.take_approval("q1", "n1", taken, AT + 79)
        await ledger.take_approval("q1", "n1", Taken.ALLOW, AT + 99)
    if ended:
        await ledger.settle([success(one)])
    assert (await ledger.approval("q1", None)).state(now_s) is state
    assert (await ledger.approval("q1", None)).taken is taken
    clock.advance(now_s - AT)
    found = [each for each in ApprovalState if (await ledger.approvals(None, frozenset({each}), None, 10))[0]]
    assert found == [state]
    assert bool(await ledger.open_approvals()) is (taken is None and not ended)


async def test_pages_are_newest_first_and_of_one_tenant(ledger: Ledger) -> None:
    """A cursor goes on where the page ended."""
    one = await _open(ledger)
    for number in range(3):
        await ledger.ask_approval(_asked(one, id=f"q{number}"))
    page, cursor = await ledger.approvals("default", frozenset(), None, 2)
    rest, end = await ledger.approvals("default", frozenset(), cursor, 2)
    assert [row.question.id for row in (*page, *rest)] == ["q2", "q1", "q0"]
    assert end is None
    assert await ledger.approvals("acme", frozenset(), None, 2) == ([], None)


async def test_questions_go_with_their_call(ledger: Ledger) -> None:
    """What is forgotten leaves nothing."""
    one = await _open(ledger)
    await ledger.ask_approval(_asked(one))
    await ledger.settle([success(one)])
    await ledger.purge(Purge(after=0, limit=10, ended_before=AT + 1e6, dead_before=0.0))
    assert await ledger.approvals(None, frozenset(), None, 2) == ([], None)
    _, is_new = await ledger.ask_approval(_asked(await _open(ledger)))
    assert is_new, "its id is free again"

"""A node's open questions: asked until they are noted, answered once, and never a yes to something else."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from tasks.approval import ARGUMENTS_MAX_BYTES, Question, Taken, Verdict
from tasks.clock import SystemClock
from tasks.ledger_events import Asked, Resolved
from tasks.node import ApprovalAnswer
from tasks.testing.clock import FakeClock
from worker import approvals as tested
from worker.approvals import OPEN_MAX, Approvals, Pause

REF = ("i1", 2)


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Asked | Resolved] = []

    def tell(self, event: Asked | Resolved) -> None:
        """Keep it."""
        self.events.append(event)


def _desk(clock: FakeClock | SystemClock | None = None) -> tuple[Approvals, Told]:
    told, numbers = Told(), count()
    return Approvals(told, clock or FakeClock(), lambda: f"q{next(numbers)}"), told


def _question(desk: Approvals, command: str = "ls", *, wait_s: float = 60.0) -> Question:
    return desk.question("Bash", {"command": command}, wait_s=wait_s, until=None, frees_slot=False)


def _said(question: Question, verdict: Verdict = Verdict.ALLOW, **other: str) -> ApprovalAnswer:
    form = {"approval": question.id, "arguments_sha256": question.arguments_sha256, "verdict": verdict} | other
    return ApprovalAnswer.model_validate(form)


async def test_an_answer_goes_on_and_is_acknowledged_as_often_as_it_comes() -> None:
    """The orchestrator says it again until it heard what became of it."""
    desk, told = _desk()
    question = _question(desk)
    waiting = asyncio.create_task(desk.answer(REF, question))
    await asyncio.sleep(0)
    desk.answered([_said(question, Verdict.DENY, reason="no")])
    assert (await waiting).reason == "no"
    desk.answered([_said(question, Verdict.DENY)])
    resolved = Resolved(*REF, "q0", Taken.DENY, FakeClock().wall_s())
    assert told.events == [Asked(*REF, question), resolved, resolved]


async def test_a_yes_to_other_arguments_allows_nothing() -> None:
    """Whoever said it."""
    desk, _ = _desk()
    question, other = _question(desk), _question(desk, "rm -rf /")
    waiting = asyncio.create_task(desk.answer(REF, question))
    await asyncio.sleep(0)
    desk.answered([_said(question, arguments_sha256=other.arguments_sha256)])
    await asyncio.wait({waiting}, timeout=0.2)
    assert not waiting.done()
    desk.answered([_said(question)])
    assert (await waiting).is_allowed


async def test_a_question_is_asked_again_until_it_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may lose it; an orchestrator that has it is not asked twice."""
    monkeypatch.setattr(tested, "RESEND_S", 0.01)
    desk, told = _desk(SystemClock())
    question = _question(desk)
    waiting = asyncio.create_task(desk.answer(REF, question))
    async with asyncio.timeout(20):
        while len(told.events) < 3:  # noqa: ASYNC110 - told by callback
            await asyncio.sleep(0.001)
    assert set(told.events) == {Asked(*REF, question)}
    desk.noted([question.id, "unknown"])
    desk.answered([_said(question)])
    assert (await waiting).is_allowed


async def test_nobody_s_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the time and the grace for what is on its way are over."""
    monkeypatch.setattr(tested, "GRACE_S", 0.05)
    desk, told = _desk(SystemClock())
    permission = await desk.answer(REF, _question(desk, wait_s=0.01))
    assert (permission.is_allowed, "nobody answered" in permission.reason) == (False, True)
    assert isinstance(told.events[-1], Resolved)
    assert told.events[-1].taken is Taken.EXPIRED


async def test_what_nobody_could_read_is_not_asked() -> None:
    """Too long, or too many at a time."""
    desk, told = _desk()
    too_long = await desk.answer(REF, _question(desk, "x" * ARGUMENTS_MAX_BYTES))
    assert "a person can be shown" in too_long.reason
    waiting = [asyncio.create_task(desk.answer(REF, _question(desk))) for _ in range(OPEN_MAX)]
    await asyncio.sleep(0)
    assert "are open already" in (await desk.answer(REF, _question(desk))).reason
    assert len(told.events) == OPEN_MAX
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def test_nobody_is_asked_for_longer_than_the_call_may_take() -> None:
    """Its deadline is the question's too."""
    desk, _ = _desk()
    now = FakeClock().wall_s()
    question = desk.question("Bash", {}, wait_s=60, until=now + 5, frees_slot=False)
    assert question.expires_at == now + 5


async def test_a_limit_does_not_run_while_a_person_thinks() -> None:
    """Also where several questions are open; a deadline does."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10.0) as limit:
        await asyncio.sleep(0)
        before = limit.when()
        assert before is not None
        pause = Pause(limit, None)
        with pause:
            with pause:
                assert limit.when() is None
            assert limit.when() is None
        after = limit.when()
        assert after is not None
        assert after >= before
        deadline_s = loop.time() + 5.0
        with Pause(limit, deadline_s):
            assert limit.when() == deadline_s
        assert limit.when() == deadline_s

"""What waits in the ledger comes into memory, by whatever way it got lost from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.assembly import fleet_of, views_of
from orchestrator.settling.audit import SETTLES_WITHIN_S, Audit
from orchestrator.testing.protocol import SAFE, WHO
from tasks.errors import LedgerDown
from tasks.invocation import Call, State
from tasks.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.testing.protocol import Story

DONE = Outcome("succeeded", result_json='{"content":[]}')


def _losing(work: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    """It commits, and the answer is lost."""

    async def lost(*given: object) -> object:
        await work(*given)
        raise LedgerDown("the test says so")

    return lost


async def test_an_acceptance_whose_answer_was_lost_is_carried_out(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller heard an error and may never come back; the row is there, so it ends like any other."""
    await story.join("a1")
    fleet = fleet_of(story.core, views_of(story.core))
    with monkeypatch.context() as broken:
        broken.setattr(story.core.stores.ledger, "accept", _losing(story.core.stores.ledger.accept))
        with pytest.raises(LedgerDown):
            await fleet.accept([Call(SAFE)], WHO)
    assert await story.release() == []
    await story.core.doubts.resolve()
    assert len(await story.release()) == 1


async def test_the_next_call_of_a_chain_survives_a_lost_answer(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settlement was kept and said nothing; saying it again is refused, and the successor still runs."""
    await story.join("a1")
    first = await story.accept(SAFE, then=(Call(SAFE),))
    (delivery,) = await story.release()
    with monkeypatch.context() as broken:
        broken.setattr(story.core.stores.ledger, "settle", _losing(story.core.stores.ledger.settle))
        with pytest.raises(LedgerDown):
            await story.finish("a1", delivery, DONE)
    await story.finish("a1", delivery, DONE)
    assert (await story.get(first.id)).state is State.SUCCEEDED
    await story.core.doubts.resolve()
    assert len(await story.release()) == 1


async def test_what_nobody_knows_is_found(story: Story) -> None:
    """A page at a time, and only what had time to get where it belongs."""
    await story.join("a1")
    forgotten = await story.accept_unoffered()
    audit = Audit(
        books=story.core.stores.ledger,
        knows=story.core.dispatcher.knows,
        doubt=story.core.doubts.note,
        clock=story.clock,
    )
    await audit.look()
    assert not story.core.doubts.has(forgotten)
    story.clock.advance(SETTLES_WITHIN_S + 1)
    await audit.look()
    await story.core.doubts.resolve()
    assert len(await story.release()) == 1


async def test_the_audit_turns_its_pages(monkeypatch: pytest.MonkeyPatch, story: Story) -> None:
    """Every waiting row is looked at in turn, then the first again."""
    monkeypatch.setattr("orchestrator.settling.audit.PAGE", 2)
    await story.join("a1")
    calls = [await story.accept_unoffered() for _ in range(5)]
    story.clock.advance(SETTLES_WITHIN_S + 1)
    doubted: list[str] = []
    audit = Audit(books=story.core.stores.ledger, knows=lambda _id: False, doubt=doubted.append, clock=story.clock)
    for _ in range(4):
        await audit.look()
    assert doubted == [*calls, *calls[:2]]

"""What nodes say of money, through the settler into the ledger: once, and also of what was given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.happenings import Happening, ModelsUsed
from orchestrator.ledger.values import CostsBy, CostsQuery
from orchestrator.testing.protocol import SAFE, UNSAFE
from tasks.invocation import State
from tasks.ledger_events import Progress
from tasks.node import LEASE_TTL_S
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.spend import Spend

if TYPE_CHECKING:
    from orchestrator.ledger.values import Cost
    from orchestrator.testing.protocol import Story

EARLY = (Spend("glm-5", 1, 10, 5, cost_usd=0.25),)
ALL = (Spend("glm-5", 3, 30, 9, cost_usd=0.75),)
DONE = Outcome("succeeded", result_json='{"content":[]}', spent=ALL)
BROKE = ErrorInfo("tool_timeout", "it took too long", Failure.NOT_STARTED)


async def total(story: Story, by: CostsBy = CostsBy.NODE) -> tuple[list[Cost], Cost]:
    """All that is booked."""
    return await story.core.stores.ledger.costs(CostsQuery(by, "default", 0.0, 1e12))


def listened(story: Story) -> list[ModelsUsed]:
    """What is told on of money."""
    told: list[ModelsUsed] = []

    def hear(happening: Happening) -> None:
        if isinstance(happening, ModelsUsed):
            told.append(happening)

    story.core.happenings.listen(hear)
    return told


async def test_an_outcome_that_comes_twice_is_paid_once(story: Story) -> None:
    """A node tells it again until it is answered, and again after it was killed: booked and counted once."""
    await story.join("a1")
    told = listened(story)
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    for _ in range(3):
        await story.said("a1", delivery, DONE)
    rows, all_of_it = await total(story)
    assert [(row.key, row.requests, row.cost_usd) for row in rows] == [("a1", 3, 0.75)]
    assert all_of_it.calls == 1
    assert told == [ModelsUsed(call.id, 1, ALL)]


async def test_what_a_dead_node_had_said_is_known(story: Story) -> None:
    """Told ahead of an end that never comes: the call is lost, that money is not."""
    await story.join("a1")
    told = listened(story)
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    await story.core.settler.spent([("a1", Progress(call.id, delivery.fence, 0.0, spent=EARLY))])
    await story.lapse(LEASE_TTL_S + 0.1)
    await story.silence(3600)
    assert (await story.get(call.id)).state is State.LOST
    assert (await total(story))[1].cost_usd == 0.25
    assert told == [ModelsUsed(call.id, 1, EARLY)]


async def test_a_node_that_comes_back_adds_what_it_had_not_said(story: Story) -> None:
    """Superseded on another node meanwhile: its outcome is refused, the rest of its bill is kept beside the other's."""
    await story.join("a1")
    told = listened(story)
    call = await story.accept(SAFE)
    (delivery,) = await story.release()
    await story.core.settler.spent([("a1", Progress(call.id, 1, 0.0, spent=EARLY))])
    await story.lapse(LEASE_TTL_S + 0.1)
    await story.join("b1")
    (again,) = await story.release()
    await story.said("b1", again, DONE)
    for _ in range(2):
        assert len(await story.said("a1", delivery, DONE)) == 1, "refused for good, and answered"
    rows, all_of_it = await total(story)
    assert {row.key: row.cost_usd for row in rows} == {"a1": 0.75, "b1": 0.75}
    assert (all_of_it.calls, all_of_it.requests) == (1, 6)
    rest = (Spend("glm-5", 2, 20, 4, cost_usd=0.5),)
    assert told == [ModelsUsed(call.id, 1, EARLY), ModelsUsed(call.id, 2, ALL), ModelsUsed(call.id, 1, rest)]


async def test_each_try_is_paid_for(story: Story) -> None:
    """A call that is tried again has spent in both tries."""
    await story.join("a1")
    call = await story.accept(SAFE)
    (first,) = await story.release()
    await story.said("a1", first, Outcome("failed", error=BROKE, spent=EARLY))
    assert (await story.get(call.id)).state is State.WAITING
    story.clock.advance(3.0)
    (second,) = await story.release()
    await story.said("a1", second, DONE)
    rows = await story.core.stores.ledger.spend_of(call.id)
    assert [(row.fence, row.spend) for row in rows] == [(1, EARLY[0]), (2, ALL[0])]


async def test_another_nodes_word_on_money_is_not_taken(story: Story) -> None:
    """Only the node that has the attempt says what it spent."""
    await story.join("a1")
    told = listened(story)
    call = await story.accept(UNSAFE)
    await story.release()
    await story.core.settler.spent([("z9", Progress(call.id, 1, 0.0, spent=ALL))])
    assert (await total(story))[1].cost_usd is None
    assert told == []


async def test_an_ordinary_call_asks_nothing_more_of_the_ledger(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """No read, no row, no telling where nothing was spent."""
    from orchestrator.ledger import settle

    def never(*_: object) -> None:
        raise AssertionError("booked")

    monkeypatch.setattr(settle, "book", never)
    monkeypatch.setattr(story.core.stores.ledger, "book", never)
    await story.join("a1")
    told = listened(story)
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    for _ in range(2):
        await story.said("a1", delivery, Outcome("succeeded", result_json='{"content":[]}'))
    assert (await story.get(call.id)).state is State.SUCCEEDED
    assert told == []

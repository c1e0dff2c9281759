"""Dead letters replayed by the fleet that every door calls, on a real ledger."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from orchestrator.assembly import fleet_of, views_of
from orchestrator.testing.protocol import SAFE, TOOLS, UNSAFE, WHO, Story
from tasks.errors import UnknownTool
from tasks.invocation import State
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.tool import ToolSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BROKEN = Outcome("failed", error=ErrorInfo("tool_error", "no such file", Failure.TOOL_ERROR))
PASSING = ToolSpec(server="passing", definition={"name": "by"})


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    """A leader with an empty ledger."""
    begun = await Story.begin(tmp_path)
    yield begun
    await begun.end()


async def _dead(story: Story, tool: str) -> str:
    call = await story.accept(tool)
    (delivery,) = await story.release()
    await story.finish("a1", delivery, BROKEN)
    assert (await story.get(call.id)).state is State.FAILED
    return call.id


async def _unanswered(story: Story) -> list[str]:
    letters, _ = await story.core.stores.ledger.dead_letters(tenant=WHO.tenant)
    return [letter.invocation_id for letter in letters if letter.replayed_as is None]


async def test_all_that_is_unanswered_is_replayed_once(story: Story) -> None:
    """Each new call is linked to its old one; a second replay of all finds nothing to do."""
    await story.join("a1")
    fleet = fleet_of(story.core, views_of(story.core))
    dead = [await _dead(story, SAFE), await _dead(story, UNSAFE)]
    again = await fleet.replay_dead(None, WHO)
    assert sorted(str(one.replay_of) for one in again) == sorted(dead)
    assert await _unanswered(story) == []
    assert await fleet.replay_dead(None, WHO) == []
    assert len(await story.release()) == len(dead)


async def test_a_letter_that_cannot_be_replayed_is_named_and_the_rest_stay(story: Story) -> None:
    """Half a replay would leave the operator guessing which calls to repeat."""
    await story.join("a1", tools=(*TOOLS, PASSING))
    fleet = fleet_of(story.core, views_of(story.core))
    gone, fine = await _dead(story, "passing.by"), await _dead(story, SAFE)
    await story.join("a1")
    with pytest.raises(UnknownTool) as refused:
        await fleet.replay_dead(None, WHO)
    assert f"nothing was replayed, because of dead letter {gone}" in refused.value.message
    assert sorted(await _unanswered(story)) == sorted([gone, fine])


async def test_a_letter_is_replayed_once_whoever_asks(story: Story) -> None:
    """Two at once, and again by its id: the answer that was lost is given again, and no second call."""
    await story.join("a1")
    fleet = fleet_of(story.core, views_of(story.core))
    dead = await _dead(story, UNSAFE)
    (one,), (other,) = await asyncio.gather(fleet.replay_dead(None, WHO), fleet.replay_dead([dead], WHO))
    again = await fleet.replay(dead, WHO)
    assert one.id == other.id == again.id
    assert again.replay_of == dead
    assert len(await story.release()) == 1


async def test_what_succeeded_may_be_asked_for_again_and_again(story: Story) -> None:
    """No letter is answered there: each replay is a call of its own."""
    await story.join("a1")
    fleet = fleet_of(story.core, views_of(story.core))
    call = await story.accept(SAFE)
    (delivery,) = await story.release()
    await story.finish("a1", delivery, Outcome("succeeded", result_json='{"content":[]}'))
    assert (await fleet.replay(call.id, WHO)).id != (await fleet.replay(call.id, WHO)).id

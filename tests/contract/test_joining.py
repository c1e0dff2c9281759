"""What a join means for what an earlier process of that node held."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.ledger.values import Waiting
from orchestrator.testing.protocol import UNSAFE, Story
from tasks.errors import NameHeld
from tasks.invocation import State


async def test_a_process_that_died_while_it_joined_started_nothing(story: Story) -> None:
    """What was released to it goes out again at no cost, even what is unsafe: its journal was never its own."""
    node = await story.join("a1")
    dead = await story.join("a1", resumes=node.incarnation)
    call = await story.accept(UNSAFE)
    await story.release()
    await story.join("a1", resumes=node.incarnation, unstarted=(dead.incarnation,))
    assert ((await story.get(call.id)).state, (await story.get(call.id)).tries) == (State.WAITING, 0)


async def test_what_a_join_sets_free_is_released_to_the_new_process(story: Story, monkeypatch: Any) -> None:
    """The dispatcher may come by before the join is answered: it finds the newer incarnation."""
    node = await story.join("a1")
    await story.accept(UNSAFE)
    await story.release()
    offer = story.core.dispatcher.offer
    addresses = []

    def watching(waiting: Waiting) -> None:
        offer(waiting)
        addresses.append(story.core.roster.get("a1").incarnation)

    monkeypatch.setattr(story.core.dispatcher, "offer", watching)
    newer = await story.join("a1", resumes=node.incarnation)
    assert addresses == [newer.incarnation]


async def test_a_process_that_was_superseded_takes_its_name_from_nobody_who_lives(story: Story) -> None:
    """Two machines of one name, each started again by systemd, would take it from each other for ever."""
    first = await story.join("a1")
    second = await story.join("a1")
    with pytest.raises(NameHeld, match="Stop one of the two"):
        await story.join("a1", yields=True)
    assert story.core.roster.get("a1").incarnation == second.incarnation != first.incarnation
    await story.join("a1")  # a process that was just started is no such one
    await story.core.desk.expel("a1")
    third = await story.join("a1", yields=True)
    assert story.core.roster.get("a1").incarnation == third.incarnation, "who was lost has no say"


async def test_a_process_that_the_fleet_forgot_is_a_member_again(story: Story) -> None:
    """A ledger that was restored knows no such name; that the process was told so is no reason to keep it out."""
    node = await story.join("a1", yields=True)
    assert (await story.renew(node)).granted

"""A node that changes what it offers while the ledger cannot be written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.testing.protocol import SAFE, TOOLS, UNSAFE, Story
from tasks.errors import LedgerDown
from tasks.invocation import Lane
from tasks.node import Offer, RenewRequest


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    """A leader."""
    story = await Story.begin(tmp_path)
    yield story
    await story.end()


async def test_the_fleet_never_counts_on_a_tool_that_its_node_has_dropped(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while the change is written down nor where that fails: outcomes were not settled for a KeyError."""
    roster, seen = story.core.roster, []

    async def refuses(_row: object) -> None:
        seen.extend(roster.offering(UNSAFE))
        raise LedgerDown("database or disk is full")

    node = await story.join("n1")
    monkeypatch.setattr(story.core.stores.ledger, "save_node", refuses)
    fewer = Offer(name="n1", pool="east", slots={Lane.TOOLS: 2}, tools=TOOLS[:1])
    with pytest.raises(LedgerDown):
        await story.core.desk.renew("n1", RenewRequest(incarnation=node.incarnation, offer=fewer))
    assert [member.name for member in roster.offering(SAFE)] == ["n1"]
    assert seen == roster.offering(UNSAFE) == []


async def test_an_offer_does_not_move_a_node_to_another_pool(story: Story) -> None:
    """The pool is what it joined in, which its credential may name: secrets go by it, and so do calls."""
    node = await story.join("n1")
    was = story.core.roster.pool_of("n1")
    other = Offer(name="n1", pool="elsewhere", slots={Lane.TOOLS: 2}, tools=TOOLS)
    await story.core.desk.renew("n1", RenewRequest(incarnation=node.incarnation, number=7, offer=other))
    assert story.core.roster.pool_of("n1") == was != "elsewhere"

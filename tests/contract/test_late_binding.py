"""Whom a pool's own queue serves: nodes that may take more, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.testing.protocol import Story
from tasks.invocation import Lane
from tasks.node import ClaimRequest, NodeState, Ref
from tasks.queues import pool_queue


@pytest.fixture
async def late(tmp_path: Path) -> AsyncIterator[Story]:
    """A leader whose pool binds late."""
    pools = tmp_path / "pools.toml"
    pools.write_text('[pools.east]\nstrategy = "late"\n')
    story = await Story.begin(tmp_path, pools_file=pools)
    yield story
    await story.end()


@pytest.mark.parametrize("state", [NodeState.CORDONED, NodeState.DRAINING])
async def test_a_node_that_shall_become_idle_claims_nothing(late: Story, state: NodeState) -> None:
    """It asked before it heard of it; the call is another's, or its own once it is open again."""
    node = await late.join("a1")
    call = await late.accept()
    await late.core.dispatcher.turn()
    assert [letter.queue for letter in late.outgoing.letters] == [pool_queue("east", Lane.TOOLS)]
    asked = ClaimRequest(incarnation=node.incarnation, claims=(Ref(invocation=call.id, fence=1),))
    await late.core.desk.set_state("a1", state)
    assert (await late.core.desk.claim("a1", asked)).granted == ()
    await late.core.desk.set_state("a1", NodeState.ACTIVE)
    assert (await late.core.desk.claim("a1", asked)).granted == asked.claims

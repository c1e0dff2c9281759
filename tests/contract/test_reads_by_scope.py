"""Who may read a call: whoever has the scope, and whoever called. At the fleet, where every door comes by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.assembly import fleet_of, views_of
from orchestrator.fleet import Fleet
from orchestrator.testing.protocol import Story
from tasks.clock import Clock
from tasks.invocation import Call, Principal
from tasks.scopes import Role, Scope, ScopeMissing

ANN = Principal("ann", roles=frozenset({Role.AGENT}), scopes=frozenset({Scope.TOOLS_READ, Scope.INVOCATIONS_WRITE}))
BOB = Principal("bob", roles=frozenset({Role.AGENT}))


@pytest.fixture
async def fleet(tmp_path: Path, clock: Clock) -> AsyncIterator[Fleet]:
    """One node."""
    story = await Story.begin(tmp_path, clock)  # type: ignore[arg-type]
    await story.join("n1")
    yield fleet_of(story.core, views_of(story.core))
    await story.end()


async def test_a_narrowed_credential_reads_its_own_calls_alone(fleet: Fleet) -> None:
    """Not a neighbour's of the same tenant, whose id it has seen somewhere."""
    [hers], [his] = await fleet.accept([Call("files.read")], ANN), await fleet.accept([Call("files.read")], BOB)
    for read in (fleet.get, fleet.explain, lambda one, by: fleet.wait(one, by, 0.0)):
        assert await read(hers.id, ANN)
        with pytest.raises(ScopeMissing, match="invocations:read"):
            await read(his.id, ANN)
        assert await read(his.id, replace(ANN, scopes=None))

"""A fleet on a real Sentinel set: its master dies, or hangs, while calls are under way."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.chaos.books import check
from tests.chaos.evidence import Evidence, read_marks
from tests.chaos.fleet import Fleet
from tests.chaos.traffic import Callers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.chaos.sentinel import SentinelSet

CALLING_S = 8.0
WITHIN_S = 60.0
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """An orchestrator and two nodes."""
    made = Fleet(tmp_path, ("n1", "n2"), is_sentinel=True)
    try:
        await made.start()
        assert made.sentinels is not None
        await made.sentinels.healed(WITHIN_S)
        yield made
    finally:
        await made.close()


async def _killed(fleet: Fleet, master: str) -> None:
    """`kill -9`; it comes back as somebody's replica."""
    await fleet.kill(master, 4.0)


async def _hung(fleet: Fleet, master: str) -> None:
    """SIGSTOP: connections stay open and nothing answers, until another is the master."""
    assert fleet.sentinels is not None
    frozen = fleet.pause(master)
    try:
        await fleet.sentinels.failed_over(master, WITHIN_S)
        await _answered(fleet, "while the old master still hangs")
    finally:
        fleet.resume(frozen)


@pytest.mark.parametrize("harm", [_killed, _hung])
async def test_a_lost_master_costs_no_call(fleet: Fleet, harm: Callable[[Fleet, str], Awaitable[None]]) -> None:
    """Accepted calls end as if nothing had happened, though what the old master held is partly gone.

    No node died, so no unsafe call is lost either: its delivery is known never to have arrived.
    """
    found = _set_of(fleet)
    callers = Callers(fleet, random.Random(7), 6, mischief_share=0.0)
    calling = asyncio.create_task(callers.run(time.monotonic() + CALLING_S))
    async with asyncio.timeout(WITHIN_S):
        while len(callers.asked) < 8:  # noqa: ASYNC110 - callers give no event
            await asyncio.sleep(0.05)
    before = await found.failed_over(None, WITHIN_S)
    await harm(fleet, before)
    after = await found.failed_over(before, WITHIN_S)
    await _answered(fleet, "on the new master")
    await calling
    await callers.ended(WITHIN_S)
    await callers.review()
    marks = [mark for mark in read_marks(fleet.marks) if mark.key not in PROBES]
    books = check(callers.asked, Evidence(marks))
    assert books.violations == []
    assert set(books.states) <= {"succeeded", "cancelled"}, books.states
    await found.healed(WITHIN_S)
    assert await found.failed_over(None, WITHIN_S) == after, "the old master is a replica of the new one"


PROBES = {"while the old master still hangs", "on the new master"}


def _set_of(fleet: Fleet) -> SentinelSet:
    assert fleet.sentinels is not None
    return fleet.sentinels


async def _answered(fleet: Fleet, key: str) -> None:
    """A new call is accepted and ends well."""
    body = {"tool": "effects.apply", "arguments": {"key": key}}
    accepted = (await fleet.ask("POST", "/v1/invocations", json=body)).raise_for_status().json()
    answer = await fleet.ask("GET", f"/v1/invocations/{accepted['id']}", params={"wait": 25})
    view = answer.raise_for_status().json()
    assert view["state"] == "succeeded", view

"""Sums that take long: made one at a time, and reused in proportion to what they cost."""

from __future__ import annotations

import asyncio

from orchestrator.api.sums import KEPT, SHARE, Sums
from tasks.testing.clock import FakeClock

WITHIN_S = 60.0


class Sum:
    """One that takes so long; counts how often it was made."""

    def __init__(self, clock: FakeClock, took_s: float) -> None:
        self.clock, self.took_s, self.made = clock, took_s, 0

    async def __call__(self) -> int:
        """The number of the time."""
        self.clock.advance(self.took_s)
        self.made += 1
        return self.made


async def test_what_took_long_is_said_again_and_what_did_not_is_made_anew() -> None:
    """A page that is open all day asks for the same a hundred thousand times."""
    clock = FakeClock()
    sums: Sums[int] = Sums(clock)
    slow, quick = Sum(clock, 0.5), Sum(clock, 0.0)
    assert [await sums.of("slow", slow) for _ in range(5)] == [1] * 5
    assert [await sums.of("quick", quick) for _ in range(3)] == [1, 2, 3]
    assert await sums.of("another", Sum(clock, 0.0)) == 1
    clock.advance(0.5 * SHARE)
    assert await sums.of("slow", slow) == 2


async def test_many_who_ask_at_once_cost_one_sum() -> None:
    """And no two sums are made at a time, whatever they are of: readers are few."""
    clock, at_once, most, go_on = FakeClock(), 0, 0, asyncio.Event()
    sums: Sums[int] = Sums(clock)

    async def slow() -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await go_on.wait()
        clock.advance(1.0)
        at_once -= 1
        return 7

    asking = [asyncio.create_task(sums.of(f"key {number % 2}", slow)) for number in range(6)]
    await asyncio.wait(asking, timeout=0.01)
    go_on.set()
    async with asyncio.timeout(WITHIN_S):
        assert await asyncio.gather(*asking) == [7] * 6
    assert most == 1
    assert clock.mono_s() - FakeClock().mono_s() == 2.0


async def test_only_so_many_answers_are_kept() -> None:
    """Whoever asks for a thousand spans of time fills no memory."""
    clock = FakeClock()
    sums: Sums[int] = Sums(clock)
    for number in range(KEPT * 3):
        await sums.of(number, Sum(clock, 0.01))
    assert len(sums._kept) == KEPT

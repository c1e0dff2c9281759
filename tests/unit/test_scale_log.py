"""What is kept of rounds: every change, little of the rest, nothing for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.autoscaler.book.scale_log import KEPT_S, ROUND_S, ScaleLog
from orchestrator.autoscaler.values import Decision, Observation, Reason
from orchestrator.ledger.values import ScaleLogRow
from tasks.errors import LedgerDown
from tasks.testing.clock import FakeClock

SAME = Decision("p", 0.0, 2, 2, reasons=(Reason("slo", "2 machines", 2),))
WORDS = replace(SAME, reasons=(*SAME.reasons, Reason("hold", "2 machines", 2)))
HOUR = 720
"""Rounds."""


class Books:
    """In memory."""

    def __init__(self) -> None:
        self.rows: list[ScaleLogRow] = []
        self.is_down = False

    async def log_scale(self, row: ScaleLogRow) -> None:
        """Kept, or not."""
        if self.is_down:
            raise LedgerDown("the test says so")
        self.rows.append(row)

    async def forget_scale_log(self, before: float) -> int:
        """Of those older."""
        kept = [row for row in self.rows if row.at >= before]
        forgotten, self.rows = len(self.rows) - len(kept), kept
        return forgotten


async def noted(*turns: Decision, rounds: int = HOUR) -> int:
    """How many rows of so many rounds in which these decisions take turns."""
    books, clock = Books(), FakeClock()
    scale_log = ScaleLog(books=books, clock=clock)
    for number in range(rounds):
        await scale_log.note(turns[number % len(turns)], Observation("p", clock.wall_s()))
        clock.advance(ROUND_S)
    return len(books.rows)


async def test_an_hour_is_kept_as_far_as_it_says_something() -> None:
    """Twelve rows of the same, one a minute of other words for it, and every round that changes what is done."""
    assert await noted(SAME) == 12
    assert 50 <= await noted(SAME, WORDS) <= 60
    assert await noted(SAME, replace(SAME, victims=("c1",))) == HOUR
    assert await noted(SAME, replace(SAME, target=3)) == HOUR


async def test_what_could_not_be_written_is_written_in_the_next_round() -> None:
    """A change is not taken for known because its write failed."""
    books, clock = Books(), FakeClock()
    scale_log = ScaleLog(books=books, clock=clock)
    books.is_down = True
    with pytest.raises(LedgerDown):
        await scale_log.note(SAME, Observation("p", 0.0))
    books.is_down = False
    await scale_log.note(SAME, Observation("p", 0.0))
    assert len(books.rows) == 1


async def test_what_is_a_week_old_is_dropped() -> None:
    """The log does not grow for ever."""
    books, clock = Books(), FakeClock()
    scale_log = ScaleLog(books=books, clock=clock)
    await scale_log.note(replace(SAME, at=clock.wall_s()), Observation("p", clock.wall_s()))
    clock.advance(KEPT_S - 1.0)
    assert await scale_log.forget() == 0
    clock.advance(2.0)
    assert await scale_log.forget() == 1

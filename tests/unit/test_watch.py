"""Waiters are woken, and what is kept for late ones has a size."""

from __future__ import annotations

from orchestrator.happenings import Ended
from orchestrator.intake.watch import ENDED_KEPT, ENDED_KEPT_BYTES, Watch
from tasks.invocation import State
from tasks.outcome import Outcome


def _ended(name: str, result_bytes: int = 2) -> Ended:
    outcome = Outcome("succeeded", result_json="x" * result_bytes)
    return Ended(name, State.SUCCEEDED, 1.0, "files.read", outcome)


def test_the_newest_ends_are_kept_by_number() -> None:
    """Small results: as many as are allowed."""
    watch = Watch()
    for number in range(ENDED_KEPT + 10):
        watch.hear(_ended(str(number)))
    kept = [number for number in range(ENDED_KEPT + 10) if watch.ended(str(number))]
    assert kept == list(range(10, ENDED_KEPT + 10))


def test_the_newest_ends_are_kept_by_their_bytes() -> None:
    """Results at the inline limit must not take a quarter of a gigabyte."""
    watch, each = Watch(), 64 * 1024
    for number in range(ENDED_KEPT):
        watch.hear(_ended(str(number), each))
    kept = [number for number in range(ENDED_KEPT) if watch.ended(str(number))]
    assert len(kept) == ENDED_KEPT_BYTES // each
    assert kept[-1] == ENDED_KEPT - 1


def test_an_end_told_twice_counts_once() -> None:
    """Else the count of bytes would only grow."""
    watch = Watch()
    for _ in range(3):
        watch.hear(_ended("same", ENDED_KEPT_BYTES // 2))
    watch.hear(_ended("other", ENDED_KEPT_BYTES // 2))
    assert watch.ended("same")
    assert watch.ended("other")

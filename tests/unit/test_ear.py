"""A node's look at its own Celery consumer."""

from __future__ import annotations

from collections.abc import Callable

from tasks.health import BAD_IN_A_ROW, GOOD_IN_A_ROW
from tasks.testing.clock import FakeClock
from worker.ear import GAP_S, Ear


class Consumer:
    """Moves, or does not."""

    def __init__(self) -> None:
        self.moves = True
        self.clock = FakeClock()
        self.ear = Ear(self._knock, self.clock)

    def _knock(self, answer: Callable[[], None]) -> None:
        if self.moves:
            answer()

    def renewals(self, count: int, gap_s: float = 2.0) -> None:
        """So many looks."""
        for _ in range(count):
            self.clock.advance(gap_s)
            self.ear.look()


def test_three_unanswered_knocks_are_trouble_and_two_answers_end_it() -> None:
    """As with every check; the first look only knocks."""
    consumer = Consumer()
    consumer.renewals(2)
    consumer.moves = False
    consumer.renewals(BAD_IN_A_ROW)
    assert consumer.ear.trouble is None
    consumer.renewals(1)
    assert consumer.ear.trouble is not None
    consumer.moves = True
    consumer.renewals(GOOD_IN_A_ROW)
    assert consumer.ear.trouble is not None
    consumer.renewals(1)
    assert consumer.ear.trouble is None


def test_renewals_close_together_are_one_look() -> None:
    """A node that has news renews at once; its consumer has had no time to answer."""
    consumer = Consumer()
    consumer.moves = False
    consumer.renewals(20, gap_s=GAP_S / 20)
    assert consumer.ear.trouble is None

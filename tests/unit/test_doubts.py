"""Looking up what is in doubt: one that cannot be read holds up no other."""

from __future__ import annotations

import pytest

from orchestrator.ledger.testing import new
from orchestrator.ledger.values import Outstanding, Waiting
from orchestrator.settling.doubts import Doubts
from tasks.errors import LedgerDown, NotFound, Unopened
from tasks.invocation import Invocation


class Books:
    """A ledger with one row that opens."""

    is_down = False

    async def get(self, invocation_id: str, tenant: str | None = None) -> Invocation:
        """By its name. `tenant`: anybody's."""
        if self.is_down:
            raise LedgerDown("the test says so")
        if invocation_id == "good":
            return new(invocation_id="good", tenant=tenant or "default").invocation
        raise NotFound("invocation", invocation_id) if invocation_id == "none" else Unopened("its key is gone")

    async def outstanding(self) -> list[Outstanding]:
        """None."""
        return []


class Backlog:
    """What was offered."""

    def __init__(self) -> None:
        self.offered: list[str] = []

    def offer(self, waiting: Waiting) -> None:
        """Take it."""
        self.offered.append(waiting.id)

    def knows(self, invocation_id: str) -> bool:
        """Whether it was."""
        return invocation_id in self.offered


class NoAttempts:
    """None is open."""

    def __contains__(self, invocation_id: object) -> bool:
        return False

    def add(self, attempt: Outstanding) -> None:
        """Nobody does."""
        raise AssertionError(attempt)


async def test_a_row_that_does_not_open_holds_up_no_other() -> None:
    """It has ended, and nothing in memory waits for it; a ledger that is down keeps all of them noted."""
    books, backlog = Books(), Backlog()
    doubts = Doubts(books=books, attempts=NoAttempts())
    doubts.backlog = backlog
    for name in ("sealed", "none", "good", "sealed-too"):
        doubts.note(name)
    books.is_down = True
    with pytest.raises(LedgerDown):
        await doubts.resolve()
    assert doubts.has("sealed")
    books.is_down = False
    await doubts.resolve()
    assert backlog.offered == ["good"]
    assert not any(map(doubts.has, ("sealed", "none", "good", "sealed-too")))

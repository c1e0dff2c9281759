"""Whoever has good credentials fills no disk: so many rows of a kind, then a count that says so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.audit.acts import COUNTED, Acts
from orchestrator.audit.log import AuditLog
from orchestrator.ledger.audit_values import AuditEntry, Decision
from orchestrator.testing.audit import MemoryBook, memory_audit
from tasks.errors import LedgerDown
from tasks.testing.clock import FakeClock

ONE = AuditEntry("set_secret", Decision.ALLOWED, "bo", credential="key:a", target="shop/a", details={"pool": "east"})


@pytest.fixture
def book() -> MemoryBook:
    """What was written."""
    return MemoryBook()


@pytest.fixture
def clock() -> FakeClock:
    """Goes forward when a test says so."""
    return FakeClock()


@pytest.fixture
def audit(book: MemoryBook, clock: FakeClock) -> AuditLog:
    """The log over it, with a limit of three rows."""
    log = memory_audit(book, clock)
    log._acts = Acts(rows=3)
    return log


async def test_a_flood_is_a_few_rows_and_a_count(book: MemoryBook, audit: AuditLog, clock: FakeClock) -> None:
    """The last row says that counting begins, so that a crash in the window hides nothing of it."""
    rows = [await audit.acted(ONE) for _ in range(10)]
    assert rows == [1, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    assert [json.loads(row.details_json).get(COUNTED, False) for row in book.rows] == [False, False, True]
    clock.advance(61)
    await audit.look()
    last = book.rows[-1]
    assert (last.actor, last.action, last.decision, last.target) == ("bo", "set_secret", "allowed", "")
    assert last.reason == "7 more of these by bo in 61 s"
    assert json.loads(last.details_json) == {"count": 7, "seconds": 61}
    assert await audit.acted(ONE) == 5


async def test_a_flood_hides_nothing_else(book: MemoryBook, audit: AuditLog) -> None:
    """Neither another kind of act, nor another principal, credential or tenant, nor what did not come off."""
    for _ in range(10):
        await audit.acted(ONE)
    others = [
        replace(ONE, action="create_key"),
        replace(ONE, actor="cy"),
        replace(ONE, credential="key:b"),
        replace(ONE, tenant="acme"),
        replace(ONE, decision=Decision.FAILED),
    ]
    assert [await audit.acted(one) for one in others] == [4, 5, 6, 7, 8]


async def test_what_cannot_be_written_is_not_counted_as_written(book: MemoryBook, audit: AuditLog) -> None:
    """A database that was away takes nobody's room."""
    book.is_down = True
    for _ in range(5):
        with pytest.raises(LedgerDown):
            await audit.acted(ONE)
    book.is_down = False
    assert [await audit.acted(ONE) for _ in range(4)] == [1, 2, 3, 3]


async def test_the_count_of_a_window_that_runs_is_written_at_the_end(book: MemoryBook, audit: AuditLog) -> None:
    """An orderly stop loses none."""
    for _ in range(5):
        await audit.acted(ONE)
    await audit.close()
    assert [row.reason for row in book.rows][3] == "2 more of these by bo in 0 s"

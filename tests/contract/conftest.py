"""The two databases that every promise of the ledger is kept on.

PostgreSQL's half carries `live("postgres")`: where it is not installed it is skipped, and the report
at the end says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger
from tasks.testing.clock import FakeClock

LOCK_WAIT_S = 0.05
"""How long SQLite waits for another's lock in these tests."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.live("postgres"))])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands still."""
    return FakeClock()


@pytest.fixture
async def ledger(ledger_url: str, clock: FakeClock) -> AsyncIterator[Ledger]:
    """An open ledger on it."""
    opened = await Ledger.open(ledger_url, clock=clock, busy_timeout_s=LOCK_WAIT_S)
    yield opened
    await opened.close()

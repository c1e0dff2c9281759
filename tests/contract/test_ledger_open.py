"""Opening: the schema that migrations make, the plans that make every hot statement cheap, bad URLs."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from orchestrator.ledger import accept, cancel, reads, release, schema, settle, spend
from orchestrator.ledger.errors import SchemaTooNew
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.tables import META, SCHEMA
from orchestrator.ledger.testing import accepted, new
from orchestrator.ledger.transaction import Hot
from tasks.errors import LedgerDown, SettingsError
from tasks.invocation import State
from tasks.testing.clock import FakeClock

BY_ID = {
    "accept, known": accept._STANDING,
    "release": release._RELEASE,
    "running": release._RUNNING,
    "started": release._STARTED,
    "claim": release._CLAIM,
    "settle": settle._END[State.SUCCEEDED],
    "settle again": settle._AGAIN,
    "close attempt": settle._CLOSE_ATTEMPT,
    "cancel": cancel._CANCEL,
    "expire": cancel._EXPIRE,
    "get": reads._GET,
    "get attempts": reads._ATTEMPTS_OF,
    "spent before": spend._BEFORE,
    "book": spend._BOOK,
}


async def test_migrations_make_exactly_the_tables(empty_url: str, clock: FakeClock) -> None:
    """What the code expects and what the migrations leave are the same tables and indexes."""
    await (await Ledger.open(empty_url, clock=clock)).close()
    engine = create_engine(empty_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": schema.VERSION_TABLE,
                "include_name": lambda name, kind, _: kind != "table" or str(name).startswith("mcpfleet_"),
            },
        )
        differences: Any = compare_metadata(context, META)
        assert differences == []
        assert inspect(connection).has_table(schema.VERSION_TABLE)
    engine.dispose()


def test_the_newest_migration_is_the_schema() -> None:
    """A ledger that is at SCHEMA is not migrated: it must be the last one there is."""
    scripts = ScriptDirectory(str(files("orchestrator.ledger") / "migrations"))
    assert scripts.get_heads() == [SCHEMA]


async def test_opening_twice_at_once_migrates_once(empty_url: str, clock: FakeClock) -> None:
    """Two orchestrators that start together on an empty database both come up."""
    opened = await asyncio.gather(*(Ledger.open(empty_url, clock=clock) for _ in range(6)))
    (one,) = await accepted(opened[0], new())
    assert [(await ledger.get(one)).id for ledger in opened] == [one] * 6
    for ledger in opened:
        await ledger.close()


async def test_a_newer_schema_is_refused(ledger: Ledger, ledger_url: str, clock: FakeClock) -> None:
    """An old version never writes into tables that it does not know."""
    engine = create_engine(ledger_url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SchemaTooNew, match="9999"):
        await Ledger.open(ledger_url, clock=clock)


@pytest.mark.parametrize("hot", BY_ID.values(), ids=BY_ID.keys())
async def test_hot_statements_find_their_row_by_key(ledger: Ledger, ledger_url: str, hot: Hot) -> None:
    """No statement of a call's life scans a table, nor walks everything that is in one state."""
    engine = create_engine(ledger_url)
    statement, names = hot.text(engine.dialect)
    with engine.connect() as connection:
        if ledger_url.startswith("sqlite"):
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", tuple(None for _ in names))
        else:
            connection.exec_driver_sql("SET enable_seqscan = off")
            given = dict.fromkeys(hot.statement.compile(dialect=engine.dialect).params)
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", given)
        plan = "\n".join(str(row) for row in rows)
    engine.dispose()
    assert not [line for line in plan.splitlines() if "SCAN" in line or "Seq Scan" in line], plan
    assert "invocations_state" not in plan


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
async def test_sqlite_syncs_every_commit(ledger: Ledger) -> None:
    """What was accepted survives a power cut, not only a crash: WAL, synced at each commit."""
    full = 2
    found = await ledger._small(
        lambda tx: [tx.all(Hot(text(f"PRAGMA {name}")), {}) for name in ("synchronous", "journal_mode")]
    )
    assert found == [[(full,)], [("wal",)]]


@pytest.mark.parametrize(
    "url",
    ["", "ledger.db", "mysql://root@localhost/x", "sqlite://", "sqlite:///:memory:", "postgresql+asyncpg://h/x"],
)
async def test_a_url_that_cannot_be_a_ledger_is_refused(url: str) -> None:
    """It is said at once, with what to write instead."""
    with pytest.raises(SettingsError, match="sqlite:///"):
        await Ledger.open(url, clock=FakeClock())


async def test_a_database_that_is_not_there_is_down(tmp_path: Path) -> None:
    """A folder that is missing, a file that is no database, a port where nobody listens."""
    (tmp_path / "junk.db").write_bytes(b"this is a letter, not a database" * 100)
    for url in (
        f"sqlite:///{tmp_path}/missing/ledger.db",
        f"sqlite:///{tmp_path}/junk.db",
        "postgresql://fleet@127.0.0.1:1/ledger",
    ):
        with pytest.raises(LedgerDown):
            await Ledger.open(url, clock=FakeClock())

"""Upgrades: ledgers of every earlier schema come up with their rows as they were; a leader outlives its successor's.

On SQLite and PostgreSQL alike. What is promised of this: docs/upgrade.md.
"""

from __future__ import annotations

import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import BigInteger, Boolean, Connection, Double, Float, Integer, MetaData, Table, create_engine, inspect
from sqlalchemy import text as sql

from orchestrator.cli.checkup_ledger import schema_of
from orchestrator.ledger.errors import SchemaTooNew
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.schema import VERSION_TABLE
from orchestrator.ledger.tables import SCHEMA
from orchestrator.ledger.testing import AT, accepted, new, released, success
from orchestrator.testing.local import command as command_of
from tasks.invocation import State
from tasks.testing.clock import FakeClock

SCRIPTS = ScriptDirectory(str(files("orchestrator.ledger") / "migrations"))
REVISIONS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]
ROWS = 3


def bring_to(connection: Connection, revision: str) -> None:
    """As an mcpfleet whose newest migration this was."""
    config = Config()
    config.set_main_option("script_location", "orchestrator.ledger:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def tables_of(connection: Connection) -> dict[str, Table]:
    """As the database has them."""
    found = MetaData()
    found.reflect(connection)
    return {name: table for name, table in found.tables.items() if name != VERSION_TABLE}


def value_for(column: Any, number: int) -> Any:
    """Something of its type; texts that need care."""
    if isinstance(column.type, Boolean):
        return number % 2 == 0
    if isinstance(column.type, BigInteger):
        return 2**40 + number
    if isinstance(column.type, Integer):
        return 1000 + number
    if isinstance(column.type, Double | Float):
        return 1_800_000_000.25 + number
    return None if column.nullable and number == 1 else f"{column.name} {number}: ä'\"%s\n\U0001f600"


def fill(connection: Connection) -> None:
    """Rows in every table."""
    for table in tables_of(connection).values():
        rows = [{one.name: value_for(one, number) for one in table.columns} for number in range(ROWS)]
        connection.execute(table.insert(), rows)


def rows_of(connection: Connection, columns: dict[str, list[str]]) -> dict[str, list[tuple[Any, ...]]]:
    """These columns of these tables, in an order."""
    found = {}
    for name, names in columns.items():
        listed = ", ".join(f'"{one}"' for one in names)
        found[name] = sorted(map(tuple, connection.execute(sql(f"SELECT {listed} FROM {name}"))), key=repr)
    return found


@pytest.mark.parametrize("revision", REVISIONS[:-1])
async def test_a_ledger_of_an_earlier_schema_keeps_its_rows(revision: str, empty_url: str, clock: FakeClock) -> None:
    """Every value in every table of that time is there, unchanged, after the newest mcpfleet has opened it."""
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        bring_to(connection, revision)
        fill(connection)
        columns = {name: [one.name for one in table.columns] for name, table in tables_of(connection).items()}
        before = rows_of(connection, columns)
    assert all(len(rows) >= ROWS for rows in before.values())
    await (await Ledger.open(empty_url, clock=clock)).close()
    assert schema_of(empty_url) == (SCHEMA, SCHEMA)
    with engine.connect() as connection:
        assert rows_of(connection, columns) == before
    engine.dispose()


OLDEST_CALL = """INSERT INTO mcpfleet_invocations (id, tenant, principal, tool, lane, state, fence, tries, priority,
cancel_requested, accepted_at, call_digest, arguments_json) VALUES ('old', 'default', 'ann', 'git.git_log', 'tools',
'waiting', 0, 0, 0, false, :at, 'd', '{}')"""


async def test_a_call_that_waits_since_the_first_schema_runs_under_the_newest(empty_url: str, clock: FakeClock) -> None:
    """Columns that came since then mean what their absence meant."""
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        bring_to(connection, REVISIONS[0])
        connection.execute(sql(OLDEST_CALL), {"at": AT})
    engine.dispose()
    ledger = await Ledger.open(empty_url, clock=clock)
    try:
        assert [one.id for one in await ledger.waiting(after=None, limit=10)] == ["old"]
        (one,) = await released(ledger, ["old"])
        assert one.fence == 1
        (settled,) = await ledger.settle([success("old")])
        assert (settled.took, (await ledger.get("old")).state) == (True, State.SUCCEEDED)
    finally:
        await ledger.close()


def test_a_migration_only_adds(empty_url: str) -> None:
    """So the orchestrator of the release before goes on writing while its successor has migrated already."""
    engine = create_engine(empty_url)
    before: dict[str, dict[str, tuple[str, bool]]] = {}
    for revision in REVISIONS:
        with engine.begin() as connection:
            bring_to(connection, revision)
            look = inspect(connection)
            after = {name: _columns(look, name) for name in look.get_table_names() if name != VERSION_TABLE}
        for name, columns in before.items():
            assert columns.items() <= after[name].items(), f"{revision} changes or drops something of {name}"
            forced = [one for one in after[name].keys() - columns.keys() if not after[name][one][1]]
            assert not forced, f"{revision} adds to {name} what an older insert does not give: {forced}"
        before = after
    engine.dispose()


def _columns(look: Any, name: str) -> dict[str, tuple[str, bool]]:
    return {
        one["name"]: (str(one["type"]), one["nullable"] or one["default"] is not None) for one in look.get_columns(name)
    }


async def test_a_leader_goes_on_under_its_successors_schema(ledger: Ledger, ledger_url: str, clock: FakeClock) -> None:
    """A rolling upgrade: the new replica has migrated, the old one leads until it is replaced. It cannot start anew."""
    (earlier,) = await accepted(ledger, new())
    engine = create_engine(ledger_url)
    with engine.begin() as connection:
        connection.execute(sql("ALTER TABLE mcpfleet_invocations ADD COLUMN of_the_future TEXT"))
        connection.execute(sql("CREATE TABLE mcpfleet_of_the_future (id TEXT)"))
        connection.execute(sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    (later,) = await accepted(ledger, new())
    await released(ledger, [earlier, later])
    assert [one.took for one in await ledger.settle([success(earlier), success(later)])] == [True, True]
    assert (await ledger.get(later)).state is State.SUCCEEDED
    with pytest.raises(SchemaTooNew, match=r"9999.*start the newer version, or restore a backup"):
        await Ledger.open(ledger_url, clock=clock)


def test_an_older_program_says_what_to_do_with_a_newer_ledger(tmp_path: Path) -> None:
    """`mcpfleet serve`, as an operator who rolled back meets it: one sentence, and nothing is changed."""
    path = tmp_path / "ledger.db"
    url = f"sqlite:///{path}"
    engine = create_engine(url)
    with engine.begin() as connection:
        bring_to(connection, "head")
        connection.execute(sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    before = path.read_bytes()
    environ = {
        "MCPFLEET_DATABASE_URL": url,
        "MCPFLEET_BLOB_DIR": str(tmp_path / "blobs"),
        "MCPFLEET_TOKEN": "t",
        "MCPFLEET_JOIN_TOKEN": "j",
        "MCPFLEET_REDIS_URL": "redis://127.0.0.1:1/0",
        "MCPFLEET_PORT": "0",
    }
    said = subprocess.run(
        command_of("serve"), env=environ | {"PATH": ""}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert "the ledger's schema is 9999" in said.stderr
    assert "restore a backup from before the upgrade" in said.stderr
    assert path.read_bytes()[100:] == before[100:]

"""Copying a ledger's SQLite file while it is written to, and looking at a ledger as it stands at one moment.

Owns what a backup says of a ledger; `postgres_dump.py` copies the other kind. Refuses to change a ledger.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Select, create_engine, func, inspect, literal_column, or_, select, table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.ledger import database
from orchestrator.ledger.audit_rows import ascending
from orchestrator.ledger.audit_values import AuditRow
from orchestrator.ledger.dbtime import database_time
from orchestrator.ledger.errors import NoLedger
from orchestrator.ledger.schema import VERSION_TABLE
from orchestrator.ledger.tables import EPOCH, INVOCATIONS, SECRETS
from tasks.errors import LedgerDown

BUSY_S = 30.0
AUDIT_PAGE = 1000
OURS = "mcpfleet_"
SEALED_LIKE = "mcf1.%"
_VERSION: Select[tuple[str]] = select(literal_column("version_num")).select_from(table(VERSION_TABLE))
MADE_AGAIN = frozenset(
    f"mcpfleet_{name}"
    for name in ("epoch", "nodes", "affinity", "audit", "audit_checkpoints", "audit_exports", "grant_keys",
                 "oauth_keys", "scale_pools", "scale_log", "node_claims")
)  # fmt: skip
"""What an orchestrator and its nodes write into an empty ledger by themselves. Rows of these alone are no loss."""


@dataclass(frozen=True, slots=True)
class Look:
    """A ledger at one moment.

    Attributes:
        schema: its newest migration.
        epoch: of its leader.
        counts: rows, by table.
        is_sealed: something in it can be opened with the key file only.
    """

    schema: str
    epoch: int
    counts: dict[str, int]
    is_sealed: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A database that a ledger is to be put into.

    Attributes:
        tables: of ours, with their rows; empty where there is none.
        is_led: an orchestrator runs on it.
        is_half: a restore into it did not come to its end.
    """

    tables: dict[str, int]
    is_led: bool
    is_half: bool

    @property
    def lost(self) -> dict[str, int]:
        """Rows that would be lost."""
        return {name: count for name, count in self.tables.items() if count and name not in MADE_AGAIN}


def is_sqlite(url: str) -> bool:
    """Which kind. Raises SettingsError: neither."""
    return database.connect(url, busy_timeout_s=BUSY_S).is_sqlite


def file_of(url: str) -> Path:
    """A SQLite ledger's file."""
    return Path(str(make_url(url).database))


@contextmanager
def at_one_moment(url: str) -> Iterator[Connection]:
    """A connection that sees the ledger as it is now, however long one looks.

    Raises:
        LedgerDown: the database does not answer.
        NoLedger: there is none in it.
    """
    opened = database.connect(url, busy_timeout_s=BUSY_S)
    if opened.is_sqlite and not file_of(url).exists():
        raise NoLedger(str(file_of(url)))
    level = {} if opened.is_sqlite else {"isolation_level": "REPEATABLE READ"}
    try:
        with opened.engine.connect().execution_options(**level) as connection:
            if opened.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            if not inspect(connection).has_table(VERSION_TABLE):
                raise NoLedger(make_url(url).render_as_string(hide_password=True))
            yield connection
    except SQLAlchemyError as error:
        raise LedgerDown(str(getattr(error, "orig", None) or error).splitlines()[0]) from error
    finally:
        opened.engine.dispose()


def look(connection: Connection) -> Look:
    """What is in it."""
    schema: str = connection.scalar(_VERSION) or ""
    tables = _tables(connection)
    c = INVOCATIONS.c
    sealed: Select[tuple[int]] = select(literal_column("1")).where(
        or_(*(column.like(SEALED_LIKE) for column in (c.arguments_json, c.result_json, c.meta_json)))
    )
    is_sealed = connection.scalar(sealed.limit(1)) is not None
    if SECRETS.name in tables:
        kept: Select[tuple[int]] = select(literal_column("1")).where(SECRETS.c.sealed.is_not(None)).limit(1)
        is_sealed = is_sealed or connection.scalar(kept) is not None
    return Look(schema, int(connection.scalar(select(EPOCH.c.epoch)) or 0), tables, is_sealed)


def blobs_named(connection: Connection) -> Iterator[str]:
    """Digests of what its rows need of the blob store; a column that an older schema lacks names none."""
    there = {column["name"] for column in inspect(connection).get_columns(INVOCATIONS.name)}
    for name in ("arguments_blob", "result_blob", "capsule_blob"):
        if name in there:
            column = INVOCATIONS.c[name]
            yield from connection.scalars(select(column).where(column.is_not(None)))


def audit_rows(connection: Connection) -> Iterator[AuditRow]:
    """In the order of writing; none where the schema is older than the log."""
    after = 0
    if not inspect(connection).has_table("mcpfleet_audit"):
        return
    while rows := ascending(connection, after, AUDIT_PAGE):
        yield from rows
        after = rows[-1].seq


def copy_sqlite(source: Path, target: Path) -> None:
    """All pages as of one moment, while others write; one file, synced.

    Raises:
        LedgerDown: it cannot be read, or written there, or the copy is damaged.
        NoLedger: there is no such file.
    """
    if not source.exists():
        raise NoLedger(str(source))
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S)) as read,
            closing(sqlite3.connect(target)) as written,
        ):
            read.backup(written)  # one step: one read transaction
            written.execute("PRAGMA journal_mode=DELETE").fetchall()
    except sqlite3.Error as error:
        raise LedgerDown(f"{source} could not be copied to {target}: {error}") from error
    if faults := damage(target):
        raise LedgerDown(f"the copy of {source} is damaged ({faults}); check the disk")


def damage(path: Path) -> str:
    """What SQLite's own check says of a file; empty where it is whole."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            found = [str(row[0]) for row in opened.execute("PRAGMA integrity_check(3)")]
    except sqlite3.Error as error:
        return str(error)
    return "" if found == ["ok"] else "; ".join(found)


def standing(url: str) -> Standing:
    """What a restore would meet there.

    Raises:
        LedgerDown: the database does not answer.
    """
    opened = database.connect(url, busy_timeout_s=BUSY_S)
    if opened.is_sqlite and not file_of(url).exists():
        return Standing({}, is_led=False, is_half=False)
    try:
        engine = create_engine(url) if opened.is_sqlite else opened.engine  # ours would make a file of it
        with engine.connect() as connection:
            tables = _tables(connection)
            if EPOCH.name not in tables:
                return Standing(tables, is_led=False, is_half=bool(tables))
            leads = is_led(connection)
            return Standing(tables, is_led=bool(leads), is_half=leads is None and any(tables.values()))
    except SQLAlchemyError as error:
        raise LedgerDown(str(getattr(error, "orig", None) or error).splitlines()[0]) from error
    finally:
        opened.engine.dispose()


def is_led(connection: Connection, *, holds: bool = False) -> bool | None:
    """Whether an orchestrator leads; None where the row is not there that leaders take.

    Args:
        connection: of the ledger.
        holds: nobody begins to lead until the transaction ends. On SQLite whoever writes holds that already.
    """
    query = select(EPOCH.c.holder.is_not(None) & (EPOCH.c.expires_at > database_time()))
    return connection.scalar(query.with_for_update() if holds else query)


def _tables(connection: Connection) -> dict[str, int]:
    ours = sorted(name for name in inspect(connection).get_table_names() if name.startswith(OURS))
    count = select(func.count())
    return {name: connection.scalar(count.select_from(table(name))) or 0 for name in ours if name != VERSION_TABLE}

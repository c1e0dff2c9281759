"""The database behind the ledger: its engine, its connections, and what its errors mean.

Owns everything that differs between SQLite and PostgreSQL, besides how rows are run
(`transaction.py`). Refuses SQLite in memory: the reader connections would each see their own.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from orchestrator.ledger.transaction import PostgresTx, SqliteTx, Tx
from tasks.errors import SettingsError

BUSY_RETRY_S = 0.005
CONNECT_S = 5
"""Seconds until a PostgreSQL host that does not answer counts as down."""
UNANSWERED_MS = 10_000
"""Milliseconds after which data that a PostgreSQL host never acknowledged breaks the connection."""
_KEEPALIVE = {
    "connect_timeout": CONNECT_S,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": UNANSWERED_MS,
}
_CONFLICTS = frozenset({"40001", "40P01"})
"""SQLSTATE of a serialization failure and of a deadlock: running again, alone, is the cure."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where the ledger is kept."""

    engine: Engine
    is_sqlite: bool

    def session(self) -> Session:
        """A connection for the writer.

        Raises:
            Exception: what the driver says; `is_down` knows it.
        """
        return Session(self)

    def is_down(self, error: BaseException) -> bool:
        """Whether this says something about the database, not about the operation."""
        own = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(own, sqlite3.Error):
            return isinstance(own, sqlite3.OperationalError) or type(own) is sqlite3.DatabaseError
        if self.is_sqlite:
            return False
        dbapi: Any = self.engine.dialect.loaded_dbapi
        if getattr(own, "sqlstate", None) in _CONFLICTS:
            return False
        return isinstance(own, dbapi.OperationalError | dbapi.InterfaceError | dbapi.InternalError)

    def is_refusal(self, error: BaseException) -> bool:
        """Whether the driver or the database refuses a value."""
        dbapi: Any = self.engine.dialect.loaded_dbapi
        return isinstance(error, dbapi.Error | UnicodeError | OverflowError)

    def transaction_on(self, connection: Connection) -> Tx:
        """The fast way to run statements on a reader's connection."""
        return _tx(self, connection.connection.dbapi_connection)


class Session:
    """The writer's connection. One thread at a time."""

    def __init__(self, database: Database) -> None:
        self._is_sqlite = database.is_sqlite
        self._pooled = database.engine.raw_connection()
        self._dbapi: Any = self._pooled.dbapi_connection
        self.tx = _tx(database, self._dbapi)

    def begin(self) -> None:
        """Open the transaction. psycopg opens it with the first statement."""
        if self._is_sqlite:
            # IMMEDIATE: a read that later becomes a write could not wait for another process's lock.
            self._dbapi.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Durable when it returns."""
        self._dbapi.commit()

    def rollback(self) -> None:
        """Forget what this transaction did."""
        self._dbapi.rollback()

    def is_broken(self) -> bool:
        """Whether the connection is gone. SQLite has none to lose."""
        return not self._is_sqlite and bool(self._dbapi.closed)

    def close(self) -> None:
        """Give the connection back to the driver, whatever its state."""
        self._pooled.invalidate()


def connect(url: str, *, busy_timeout_s: float) -> Database:
    """Describe the database at `url`; nothing is contacted yet.

    Raises:
        SettingsError: not a URL that the ledger can use.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed,
            poolclass=NullPool,
            connect_args={"check_same_thread": False, "timeout": busy_timeout_s},
        )
        event.listen(engine, "connect", lambda dbapi, _record: _prepare_sqlite(dbapi, busy_timeout_s))
        return Database(engine, is_sqlite=True)
    arguments = {name: value for name, value in _KEEPALIVE.items() if name not in parsed.query}
    return Database(create_engine(parsed, poolclass=NullPool, connect_args=arguments), is_sqlite=False)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError(
            f"the ledger's URL is not one: {error}; e.g. sqlite:////var/lib/mcpfleet/ledger.db"
        ) from error
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    shown = parsed.render_as_string(hide_password=True)
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        raise SettingsError(f"the ledger cannot use {shown}: use sqlite:///PATH or postgresql://HOST/NAME")
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise SettingsError(f"the ledger cannot use {shown}: it must outlive the process; use sqlite:///PATH")
    return parsed


def _prepare_sqlite(dbapi: sqlite3.Connection, busy_timeout_s: float) -> None:
    # The driver must not open transactions by itself: the writer says BEGIN IMMEDIATE.
    dbapi.isolation_level = None
    # WAL lets readers work while the writer commits; FULL syncs it at each commit, so that what was
    # accepted survives a power cut, not only a crash of the process.
    _to_wal(dbapi, busy_timeout_s)
    dbapi.execute("PRAGMA synchronous=FULL")


def _to_wal(dbapi: sqlite3.Connection, busy_timeout_s: float) -> None:
    """SQLite does not wait by itself when two processes do this to a new file at the same time."""
    ends_s = time.monotonic() + busy_timeout_s
    while True:
        try:
            dbapi.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= ends_s:
                raise
            time.sleep(BUSY_RETRY_S)
        else:
            return


def _tx(database: Database, dbapi: Any) -> Tx:  # noqa: ANN401 - two drivers, no common type
    kind = SqliteTx if database.is_sqlite else PostgresTx
    return kind(database.engine.dialect, dbapi.cursor())

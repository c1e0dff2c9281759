"""Bringing the database to the newest schema, when the ledger opens.

The migrations are files of this package, so they are there in an installed wheel too. Refuses to
open a database that a newer version wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from orchestrator.ledger.errors import SchemaTooNew
from orchestrator.ledger.tables import SCHEMA

if TYPE_CHECKING:
    from orchestrator.ledger.database import Database

VERSION_TABLE = "mcpfleet_schema"
LOCK_KEY = 0x6D63_7066
"""Of the PostgreSQL advisory lock under which one orchestrator migrates: "mcpf"."""


def migrate(database: Database) -> None:
    """Run what is missing, in one transaction; one process at a time.

    Raises:
        SchemaTooNew: the database is ahead of this code.
    """
    with database.engine.connect() as connection:
        if _version(connection) == SCHEMA:
            return
        connection.rollback()
        with connection.begin():
            _lock(connection, is_sqlite=database.is_sqlite)
            if (found := _version(connection)) != SCHEMA:
                _upgrade(connection, found)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - a constant
    return found


def _lock(connection: Connection, *, is_sqlite: bool) -> None:
    if is_sqlite:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")


def _upgrade(connection: Connection, found: str | None) -> None:
    # Alembic takes 0.2 s to load, which an orchestrator whose schema is current need not pay.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "orchestrator.ledger:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaTooNew(found or "unknown", SCHEMA) from error

"""Doctor: does the ledger's database have the schema that this version writes? Changes nothing in it."""

from __future__ import annotations

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.ledger.schema import VERSION_TABLE
from orchestrator.ledger.tables import SCHEMA
from tasks.errors import LedgerDown


def schema_of(url: str) -> tuple[str | None, str]:
    """The schema found (None: none at all), and the one wanted.

    Raises:
        LedgerDown: the database does not answer.
    """
    try:
        engine = create_engine(read_only(url))
        try:
            with engine.connect() as connection:
                if not inspect(connection).has_table(VERSION_TABLE):
                    return None, SCHEMA
                found: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - a constant
                return found, SCHEMA
        finally:
            engine.dispose()
    except (SQLAlchemyError, OSError, ImportError) as error:
        detail = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise LedgerDown(detail) from error


def read_only(url: str) -> str:
    """SQLite makes a missing file unless told not to."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return url
    return f"sqlite:///file:{parsed.database}?mode=ro&uri=true"

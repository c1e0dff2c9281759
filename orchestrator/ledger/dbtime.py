"""The database's own clock, in SQL: what replicas on several machines agree on without a time server."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement


class database_time(ColumnElement[float]):  # noqa: N801 - a function of SQL
    """Seconds since the epoch, moving within a transaction; SQLite's resolution is a millisecond."""

    type = Double()
    inherit_cache = True


@compiles(database_time, "sqlite")
def _of_sqlite(_element: database_time, _compiler: Any, **_more: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_time, "postgresql")
def _of_postgresql(_element: database_time, _compiler: Any, **_more: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"

"""The database's own clock, in SQL: what replicas on several machines agree on without a time server."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement


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


class utc_day(FunctionElement[str]):  # noqa: N801 - a function of SQL
    """The day of a wall clock in seconds, in UTC: `2026-11-21`."""

    name = "utc_day"
    type = Text()
    inherit_cache = True


@compiles(utc_day, "sqlite")
def _day_of_sqlite(element: utc_day, compiler: Any, **more: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
    return f"date({compiler.process(element.clauses, **more)}, 'unixepoch')"


@compiles(utc_day, "postgresql")
def _day_of_postgresql(element: utc_day, compiler: Any, **more: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
    return f"to_char(to_timestamp({compiler.process(element.clauses, **more)}) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"

"""How the ledger's fixed statements reach the driver: compiled once, run for many rows at a time.

A `Hot` statement is a SQLAlchemy Core construct that is compiled once per dialect and then handed to
the driver as text. Measured (2 cores, SQLite, CPU of one UPDATE of one row): Core's
`Connection.execute` 71 µs, `exec_driver_sql` 37 µs, the driver's own cursor 11 µs; so the ledger uses
the driver's cursor. Refuses to hold rules: those are in `accept`, `release`, `settle` and `cancel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sqlalchemy import ClauseElement
    from sqlalchemy.engine.interfaces import Dialect

Row = Mapping[str, object]
Found = tuple[Any, ...]
"""A row as the driver gives it."""


class Hot:
    """A fixed statement. Its parameters are its `bindparam` names, or columns of an INSERT."""

    __slots__ = ("columns", "statement")

    def __init__(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> None:
        self.statement = statement
        self.columns = columns

    def text(self, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
        """SQL in the driver's own parameter style; the names of positional parameters, in order."""
        compiled = self.statement.compile(dialect=dialect, column_keys=self.columns)
        return str(compiled), tuple(getattr(compiled, "positiontup", None) or ())


class Tx(Protocol):
    """One open transaction. Each method runs one statement once per row, in order."""

    def put(self, hot: Hot, rows: Sequence[Row]) -> None:
        """Run it for every row; what it did is not asked."""
        ...

    def counts(self, hot: Hot, rows: Sequence[Row]) -> list[int]:
        """How many rows each run touched."""
        ...

    def firsts(self, hot: Hot, rows: Sequence[Row]) -> list[Found | None]:
        """The first row that each run returned, None where there was none."""
        ...

    def all(self, hot: Hot, row: Row) -> list[Found]:
        """Every row that one run returned."""
        ...


class SqliteTx:
    """On the driver's cursor: a statement costs so little that one call per row is the fast way.

    Parameters go in by position: binding 21 of them by name costs 9 µs more (37 to 46 µs per INSERT).
    """

    def __init__(self, dialect: Dialect, cursor: Any) -> None:  # noqa: ANN401 - two drivers, no common type
        self._dialect = dialect
        self._cursor = cursor
        self._known: dict[Hot, tuple[str, Callable[[Row], Found]]] = {}

    def put(self, hot: Hot, rows: Sequence[Row]) -> None:
        """One call of the driver for all rows."""
        text, in_order = self._compiled(hot)
        self._cursor.executemany(text, map(in_order, rows))

    def counts(self, hot: Hot, rows: Sequence[Row]) -> list[int]:
        """One call of the driver per row."""
        (text, in_order), execute = self._compiled(hot), self._cursor.execute
        return [execute(text, in_order(row)).rowcount for row in rows]

    def firsts(self, hot: Hot, rows: Sequence[Row]) -> list[Found | None]:
        """One call of the driver per row."""
        (text, in_order), execute = self._compiled(hot), self._cursor.execute
        found: list[Found | None] = []
        for row in rows:
            # All of it: a statement with rows left would still be open when the group commits.
            got = execute(text, in_order(row)).fetchall()
            found.append(got[0] if got else None)
        return found

    def all(self, hot: Hot, row: Row) -> list[Found]:
        """One call of the driver."""
        text, in_order = self._compiled(hot)
        found: list[Found] = self._cursor.execute(text, in_order(row)).fetchall()
        return found

    def _compiled(self, hot: Hot) -> tuple[str, Callable[[Row], Found]]:
        known = self._known.get(hot)
        if known is None:
            text, names = hot.text(self._dialect)
            known = self._known[hot] = text, _picker(names)
        return known


def _picker(names: Sequence[str]) -> Callable[[Row], Found]:
    """The values of `names`, in that order."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda row: tuple(row[name] for name in names)


class PostgresTx:
    """On psycopg's cursor: `executemany` pipelines, so n rows cost one round trip."""

    def __init__(self, dialect: Dialect, cursor: Any) -> None:  # noqa: ANN401 - two drivers, no common type
        self._dialect = dialect
        self._cursor = cursor
        self._known: dict[Hot, str] = {}

    def put(self, hot: Hot, rows: Sequence[Row]) -> None:
        """One round trip for all rows."""
        if len(rows) == 1:
            self._cursor.execute(self._text(hot), rows[0], prepare=True)
        elif rows:
            self._cursor.executemany(self._text(hot), rows)

    def counts(self, hot: Hot, rows: Sequence[Row]) -> list[int]:
        """One round trip for all rows."""
        return [self._cursor.rowcount for _ in self._results(hot, rows)]

    def firsts(self, hot: Hot, rows: Sequence[Row]) -> list[Found | None]:
        """One round trip for all rows."""
        return [self._cursor.fetchone() for _ in self._results(hot, rows)]

    def all(self, hot: Hot, row: Row) -> list[Found]:
        """One round trip."""
        found: list[Found] = self._cursor.execute(self._text(hot), row, prepare=True).fetchall()
        return found

    def _results(self, hot: Hot, rows: Sequence[Row]) -> Iterator[None]:
        """Run it for every row, then stand on each result in turn."""
        if not rows:
            return
        if len(rows) == 1:
            self._cursor.execute(self._text(hot), rows[0], prepare=True)
        else:
            self._cursor.executemany(self._text(hot), rows, returning=True)
        yield
        while self._cursor.nextset():
            yield

    def _text(self, hot: Hot) -> str:
        text = self._known.get(hot)
        if text is None:
            text, _ = hot.text(self._dialect)
            self._known[hot] = text
        return text

"""Sealed texts of rows under the newest key: a slice at a time, found and changed by what each text says of its key.

A slice is read beside the writer, wrapped anew by whoever has the keys, and put back only where the text is still the
one that was read. So nothing is remembered but where the last slice ended, every row opens at any moment by one key or
the other, and it can be cut off and begun again. Owns which columns are sealed and to what each text is bound; refuses
to hold keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import orjson
from sqlalchemy import ColumnElement, Table, and_, bindparam, func, not_, or_, select, update

from orchestrator.ledger.oauth_tables import OAUTH_KEYS
from orchestrator.ledger.oauth_values import aad_of_signing_key
from orchestrator.ledger.readers import Reader
from orchestrator.ledger.sealed import FORM, aad_of_text
from orchestrator.ledger.secret_values import Change, Found, Text
from orchestrator.ledger.tables import APPROVALS, INVOCATIONS
from orchestrator.ledger.transaction import Hot, Tx

T = TypeVar("T")
REST = "rest_json"
"""Of calls: JSON, in which the calls that follow have sealed texts."""
SLICE_ROWS = 100
"""Rows that one transaction changes: a few milliseconds of the writer."""
SPAN_ROWS = 2000
"""Rows that are looked at for one slice, at most."""


class Books(Protocol):
    """The ledger."""

    async def write(self, operation: Callable[[Tx], T]) -> T: ...
    async def read(self, question: Callable[[Reader], T]) -> T: ...


@dataclass(frozen=True)
class Shelf:
    """One table with sealed texts."""

    books: Books
    table: Table
    key: str
    """Column by which a row is changed."""
    columns: tuple[str, ...]
    texts: Callable[[dict[str, Any], str], Iterator[Text]]
    """The sealed texts in a column of a row, with what they are bound to."""

    async def find(self, newest: str, after: int) -> Found:
        """The next slice.

        Args:
            newest: kid of the key under which everything shall be.
            after: where the last one ended; 0 at first.

        Raises:
            LedgerDown
        """
        return await self.books.read(lambda reader: self._find(reader, newest, after))

    def _find(self, reader: Reader, newest: str, after: int) -> Found:
        order = self.table.c.get("seq")
        wanted = [self.table.c[self.key], *(self.table.c[name] for name in self.columns)]
        older = or_(*(_is_older(self.table.c[name], newest) for name in self.columns))
        if order is None:  # a handful of rows
            return Found(tuple(map(dict, reader.core.execute(select(*wanted).where(older)).mappings())), None)
        end = reader.core.execute(select(func.max(order))).scalar() or 0
        until = after + SPAN_ROWS
        query = select(order, *wanted).where(order > after, order <= until, older).order_by(order).limit(SLICE_ROWS)
        rows = tuple(map(dict, reader.core.execute(query).mappings()))
        if len(rows) == SLICE_ROWS:
            return Found(rows, int(rows[-1]["seq"]))
        return Found(rows, until if until < end else None)

    async def put(self, changes: Sequence[Change]) -> int:
        """Write them, in one transaction; how many were still as they were read.

        Raises:
            LedgerDown, EpochLost: none was written.
        """

        def write(tx: Tx) -> int:
            done = 0
            for name in self.columns:
                rows = [{"p_key": one.id, "p_old": one.old, "p_new": one.new} for one in changes if one.column == name]
                done += sum(tx.counts(self._statement(name), rows)) if rows else 0
            return done

        return await self.books.write(write)

    def _statement(self, name: str) -> Hot:
        column = self.table.c[name]
        statement = update(self.table).where(self.table.c[self.key] == bindparam("p_key"), column == bindparam("p_old"))
        return Hot(statement.values({name: bindparam("p_new")}))


def _is_older(column: ColumnElement[Any], newest: str) -> ColumnElement[bool]:
    if column.key == REST:  # JSON with sealed texts in it
        return func.replace(column, f'"{FORM}{newest}.', "").like(f'%"{FORM}%')
    return and_(column.like(f"{FORM}%"), not_(column.like(f"{FORM}{newest}.%")))


def _of_call(row: dict[str, Any], column: str) -> Iterator[Text]:
    text = row[column]
    if text is None:
        return
    if column == REST:
        yield from _of_chain(orjson.loads(text).get("then", ()), row["id"], "")
    elif text.startswith(FORM):
        yield Text(text, aad_of_text(row["id"], column.removesuffix("_json")))


def _of_chain(then: Sequence[dict[str, Any]], owner: str, place: str) -> Iterator[Text]:
    for at, call in enumerate(then):
        for name in ("arguments", "meta"):
            text = call.get(f"{name}_json")
            if text is not None and text.startswith(FORM):
                yield Text(text, aad_of_text(owner, f"{place}{at}.{name}"))
        yield from _of_chain(call.get("then", ()), owner, f"{place}{at}.")


def _of_question(row: dict[str, Any], column: str) -> Iterator[Text]:
    if (row[column] or "").startswith(FORM):
        yield Text(row[column], aad_of_text(row["id"], "asked"))


def _of_signing_key(row: dict[str, Any], column: str) -> Iterator[Text]:
    yield Text(row[column], aad_of_signing_key(row["kid"]))


def shelves(books: Books) -> tuple[Shelf, ...]:
    """Every table with sealed texts, but that of secrets: these are few, and done at once."""
    return (
        Shelf(books, INVOCATIONS, "id", ("arguments_json", "meta_json", "result_json", REST), _of_call),
        Shelf(books, APPROVALS, "id", ("arguments_json",), _of_question),
        Shelf(books, OAUTH_KEYS, "kid", ("sealed",), _of_signing_key),
    )

"""Small tables beside the calls: a row by its key, kept, replaced, dropped, and all of them read at once.

Rare beside calls, so each is one small operation. Refuses to interpret any of it: whoever keeps something
here has it in memory while this orchestrator leads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from sqlalchemy import Table, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from orchestrator.ledger.key_values import KeyRow
from orchestrator.ledger.readers import Reader
from orchestrator.ledger.tables import KEYS
from orchestrator.ledger.transaction import Hot, Tx

T = TypeVar("T")


class Shelf:
    """One such table."""

    def __init__(self, table: Table, key: str) -> None:
        self.table, self.key = table, key
        names = tuple(column.name for column in table.columns)
        new = insert(table)
        changed = {name: new.excluded[name] for name in names if name != key}
        self._keep = Hot(new.on_conflict_do_update(index_elements=[key], set_=changed).inline(), names)
        self._drop = Hot(delete(table).where(table.c[key] == bindparam("p_key")))

    def keep(self, tx: Tx, row: Mapping[str, Any]) -> None:
        """Insert or replace one."""
        tx.put(self._keep, [dict(row)])

    def drop(self, tx: Tx, key: str) -> None:
        """Delete one; there may be none."""
        tx.put(self._drop, [{"p_key": key}])

    def read(self, reader: Reader) -> list[dict[str, Any]]:
        """All, by key."""
        found = reader.core.execute(select(self.table).order_by(self.table.c[self.key]))
        return [dict(row) for row in found.mappings()]


class Books(Protocol):
    """The ledger."""

    async def read(self, question: Callable[[Reader], T]) -> T: ...
    async def write(self, operation: Callable[[Tx], T]) -> T: ...


_KEYS = Shelf(KEYS, "id")


class KeyRows:
    """API keys."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def save(self, row: KeyRow) -> None:
        """Insert or replace one."""
        await self._books.write(lambda tx: _KEYS.keep(tx, asdict(row)))

    async def forget(self, key_id: str) -> None:
        """Delete one."""
        await self._books.write(lambda tx: _KEYS.drop(tx, key_id))

    async def all(self) -> list[KeyRow]:
        """Every key, by id."""
        return [KeyRow(**row) for row in await self._books.read(_KEYS.read)]

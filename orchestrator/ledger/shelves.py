"""Small tables beside the calls: a row by its key, kept, replaced, dropped, and all of them read at once.

Rare beside calls, so each is one small operation. Refuses to interpret any of it: whoever keeps something
here has it in memory while this orchestrator leads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from sqlalchemy import Table, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from orchestrator.ledger.key_values import KeyRow
from orchestrator.ledger.readers import Reader
from orchestrator.ledger.tables import KEYS
from orchestrator.ledger.transaction import Hot, Tx


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


class Shelves(Protocol):
    """The ledger."""

    async def keep(self, shelf: Shelf, row: Mapping[str, Any]) -> None: ...
    async def drop(self, shelf: Shelf, key: str) -> None: ...
    async def kept(self, shelf: Shelf) -> list[dict[str, Any]]: ...


_KEYS = Shelf(KEYS, "id")


class KeyRows:
    """API keys."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves

    async def save(self, row: KeyRow) -> None:
        """Insert or replace one."""
        await self._shelves.keep(_KEYS, asdict(row))

    async def forget(self, key_id: str) -> None:
        """Delete one."""
        await self._shelves.drop(_KEYS, key_id)

    async def all(self) -> list[KeyRow]:
        """Every key, by id."""
        return [KeyRow(**row) for row in await self._shelves.kept(_KEYS)]

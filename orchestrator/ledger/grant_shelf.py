"""Grants and the public keys of grants, as the ledger keeps them."""

from __future__ import annotations

from dataclasses import asdict

from orchestrator.ledger.grant_values import GrantKeyRow, GrantRow
from orchestrator.ledger.shelves import Books, Shelf
from orchestrator.ledger.tables import GRANT_KEYS, GRANTS

_GRANTS, _KEYS = Shelf(GRANTS, "id"), Shelf(GRANT_KEYS, "id")


class GrantRows:
    """The book of AuthGuardian."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def save(self, row: GrantRow) -> None:
        """Insert or replace one request."""
        await self._books.write(lambda tx: _GRANTS.keep(tx, asdict(row)))

    async def forget(self, grant_id: str) -> None:
        """Delete one."""
        await self._books.write(lambda tx: _GRANTS.drop(tx, grant_id))

    async def all(self) -> list[GrantRow]:
        """Every request, oldest first: ids are ordered by time."""
        return [GrantRow(**row) for row in await self._books.read(_GRANTS.read)]

    async def save_key(self, row: GrantKeyRow) -> None:
        """Insert one key; it never changes."""
        await self._books.write(lambda tx: _KEYS.keep(tx, asdict(row)))

    async def forget_key(self, key_id: str) -> None:
        """Delete one."""
        await self._books.write(lambda tx: _KEYS.drop(tx, key_id))

    async def keys(self) -> list[GrantKeyRow]:
        """Every key."""
        return [GrantKeyRow(**row) for row in await self._books.read(_KEYS.read)]

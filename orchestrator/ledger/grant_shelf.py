"""Grants and the public keys of grants, as the ledger keeps them."""

from __future__ import annotations

from dataclasses import asdict

from orchestrator.ledger.grant_values import GrantKeyRow, GrantRow
from orchestrator.ledger.shelves import Shelf, Shelves
from orchestrator.ledger.tables import GRANT_KEYS, GRANTS

_GRANTS, _KEYS = Shelf(GRANTS, "id"), Shelf(GRANT_KEYS, "id")


class GrantRows:
    """The book of AuthGuardian."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves

    async def save(self, row: GrantRow) -> None:
        """Insert or replace one request."""
        await self._shelves.keep(_GRANTS, asdict(row))

    async def forget(self, grant_id: str) -> None:
        """Delete one."""
        await self._shelves.drop(_GRANTS, grant_id)

    async def all(self) -> list[GrantRow]:
        """Every request, oldest first: ids are ordered by time."""
        return [GrantRow(**row) for row in await self._shelves.kept(_GRANTS)]

    async def save_key(self, row: GrantKeyRow) -> None:
        """Insert one key; it never changes."""
        await self._shelves.keep(_KEYS, asdict(row))

    async def forget_key(self, key_id: str) -> None:
        """Delete one."""
        await self._shelves.drop(_KEYS, key_id)

    async def keys(self) -> list[GrantKeyRow]:
        """Every key."""
        return [GrantKeyRow(**row) for row in await self._shelves.kept(_KEYS)]

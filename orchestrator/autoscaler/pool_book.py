"""What is remembered of a scaled pool beside its policy: its shape, its season, an operator's override.

The one owner of the ledger's rows: three parts write three columns of one row, and a write replaces it.
Refuses to interpret any of them.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Protocol

from orchestrator.ledger.values import ScalePoolRow

Changed = Any
"""JSON of any column but the pool, or None."""


class PoolBooks(Protocol):
    """The ledger."""

    async def scale_pools(self) -> list[ScalePoolRow]: ...
    async def save_scale_pool(self, row: ScalePoolRow) -> None: ...


class PoolBook:
    """Rows by pool, in memory as the ledger has them."""

    def __init__(self, books: PoolBooks) -> None:
        self._books = books
        self._rows: dict[str, ScalePoolRow] = {}
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """What an earlier leader wrote.

        Raises:
            LedgerDown: nothing is known.
        """
        async with self._writing:
            self._rows = {row.pool: row for row in await self._books.scale_pools()}

    def of(self, pool: str) -> ScalePoolRow:
        """A pool's row; an empty one where nothing was written."""
        return self._rows.get(pool) or ScalePoolRow(pool)

    def all(self) -> list[ScalePoolRow]:
        """Every row."""
        return list(self._rows.values())

    async def note(self, pool: str, **changes: Changed) -> ScalePoolRow:
        """Change some columns, durably.

        Raises:
            LedgerDown: nothing was changed.
        """
        async with self._writing:
            row = replace(self.of(pool), **changes)
            if row != self._rows.get(pool):
                await self._books.save_scale_pool(row)
                self._rows[pool] = row
            return row

"""What is remembered of each pool beside its claims: history, a person's override, what its nodes offered.

The one writer of the ledger's `scale_pools`: a row is written whole, so two would undo each other.
Refuses to know what `shape` means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import structlog

from orchestrator.autoscaler.history import History
from orchestrator.autoscaler.values import Override
from orchestrator.autoscaler.wire import UnreadableRecord, dumps, loads
from orchestrator.ledger.values import ScalePoolRow

log = structlog.get_logger("mcpfleet.autoscaler")


class PoolBooks(Protocol):
    """The ledger."""

    async def scale_pools(self) -> list[ScalePoolRow]: ...
    async def save_scale_pool(self, row: ScalePoolRow) -> None: ...


class PoolMemory:
    """In memory, and in the ledger first."""

    def __init__(self, books: PoolBooks) -> None:
        self._books = books
        self._rows: dict[str, ScalePoolRow] = {}
        self._histories: dict[str, History] = {}
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """What an earlier leader remembered.

        Raises:
            LedgerDown: nothing is known.
        """
        self._rows = {row.pool: row for row in await self._books.scale_pools()}
        self._histories = {}

    def history(self, pool: str) -> History:
        """As it was set last; an unreadable one begins anew."""
        if pool not in self._histories:
            self._histories[pool] = self._read_history(pool)
        return self._histories[pool]

    def set_history(self, pool: str, history: History) -> None:
        """In memory; `save_histories` makes it durable now and then."""
        self._histories[pool] = history

    async def save_histories(self) -> None:
        """Those that changed.

        Raises:
            LedgerDown, EpochLost: the rest is not saved.
        """
        for pool, history in list(self._histories.items()):
            await self._change(pool, season_json=dumps(history))

    def override(self, pool: str, now: float) -> Override | None:
        """A person's word that holds now."""
        text = self._row(pool).override_json
        if text is None:
            return None
        try:
            said = loads(Override, text)
        except UnreadableRecord as error:
            log.warning("override_unreadable", pool=pool, error=error.message)
            return None
        return said if now < said.until else None

    async def set_override(self, pool: str, override: Override | None) -> None:
        """None ends it.

        Raises:
            LedgerDown, EpochLost: it is as it was.
        """
        await self._change(pool, override_json=None if override is None else dumps(override))

    def shape_json(self, pool: str) -> str | None:
        """What its nodes last offered, as was set."""
        return self._row(pool).shape_json

    async def set_shape(self, pool: str, shape_json: str) -> None:
        """What its nodes offer.

        Raises:
            LedgerDown, EpochLost: it is as it was.
        """
        await self._change(pool, shape_json=shape_json)

    def pools(self) -> Mapping[str, ScalePoolRow]:
        """Every pool of which something is remembered."""
        return dict(self._rows)

    def _row(self, pool: str) -> ScalePoolRow:
        return self._rows.get(pool) or ScalePoolRow(pool)

    async def _change(self, pool: str, **changes: Any) -> None:  # noqa: ANN401 - fields of the row
        async with self._writing:
            row = replace(self._row(pool), **changes)
            if row != self._rows.get(pool):
                await self._books.save_scale_pool(row)
                self._rows[pool] = row

    def _read_history(self, pool: str) -> History:
        text = self._row(pool).season_json
        if text is None:
            return History()
        try:
            return loads(History, text)
        except UnreadableRecord as error:
            log.warning("history_unreadable", pool=pool, error=error.message)
            return History()

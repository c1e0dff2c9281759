"""What is remembered of pools beside their policy: shape, history, a person's override; and whether all is dry.

The one writer of the ledger's `scale_pools`: a row is written whole, so two would undo each other. In
memory, and in the ledger first. Refuses to know what a shape means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

import orjson
import structlog

from orchestrator.autoscaler.book.wire import UnreadableRecord, dumps, loads
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.values import Override
from orchestrator.ledger.values import ScalePoolRow
from tasks.clock import Clock

log = structlog.get_logger("mcpfleet.autoscaler")
FLEET = "*"
"""Row of the whole fleet; no pool can be named so."""
Kept = TypeVar("Kept", History, Override)


class PoolBooks(Protocol):
    """The ledger."""

    async def scale_pools(self) -> list[ScalePoolRow]: ...
    async def save_scale_pool(self, row: ScalePoolRow) -> None: ...


class PoolBook:
    """Every pool of which something is remembered."""

    def __init__(self, *, books: PoolBooks, clock: Clock, is_dry: bool) -> None:
        self._books, self._clock, self._is_dry_by_file = books, clock, is_dry
        self._rows: dict[str, ScalePoolRow] = {}
        self._overrides: dict[str, Override | None] = {}
        self._histories: dict[str, History] = {}
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """What an earlier leader remembered.

        Raises:
            LedgerDown: nothing is known.
        """
        async with self._writing:
            self._rows = {row.pool: row for row in await self._books.scale_pools()}
            self._overrides, self._histories = {}, {}

    @property
    def is_dry(self) -> bool:
        """Decide and say, order and end nothing: as an operator said last, else as the file does."""
        said = self._row(FLEET).override_json
        return self._is_dry_by_file if said is None else bool(orjson.loads(said)["is_dry"])

    async def set_dry(self, is_dry: bool) -> None:
        """Over restarts too: a fleet that was told to hold still must not wake up spending money.

        Raises:
            LedgerDown, EpochLost: it is as before.
        """
        await self._change(FLEET, override_json=orjson.dumps({"is_dry": is_dry}).decode())

    def override(self, pool: str) -> Override | None:
        """A person's word that holds now; an unreadable one does not."""
        if pool not in self._overrides:
            self._overrides[pool] = self._read(Override, pool, self._row(pool).override_json)
        found = self._overrides[pool]
        return found if found is not None and self._clock.wall_s() < found.until else None

    async def set_override(self, pool: str, override: Override | None) -> None:
        """From now on, until it expires; None takes it back.

        Raises:
            LedgerDown, EpochLost: it is as before.
        """
        await self._change(pool, override_json=None if override is None else dumps(override))
        self._overrides.pop(pool, None)

    def history(self, pool: str) -> History:
        """As it was set last; an unreadable one begins anew."""
        if pool not in self._histories:
            self._histories[pool] = self._read(History, pool, self._row(pool).season_json) or History()
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

    def shapes(self) -> Mapping[str, str]:
        """What pools' nodes last offered, as it was set."""
        return {row.pool: row.shape_json for row in self._rows.values() if row.shape_json is not None}

    async def set_shape(self, pool: str, shape_json: str) -> None:
        """What its nodes offer now.

        Raises:
            LedgerDown, EpochLost: it is as before.
        """
        await self._change(pool, shape_json=shape_json)

    def _row(self, pool: str) -> ScalePoolRow:
        return self._rows.get(pool) or ScalePoolRow(pool)

    async def _change(self, pool: str, **columns: str | None) -> None:
        async with self._writing:
            row = replace(self._row(pool), **columns)  # type: ignore[arg-type] # columns of text only
            if row != self._row(pool):
                await self._books.save_scale_pool(row)
                self._rows[pool] = row

    def _read(self, kind: type[Kept], pool: str, text: str | None) -> Kept | None:
        if text is None:
            return None
        try:
            return loads(kind, text)
        except UnreadableRecord as error:
            log.warning("scale_row_unreadable", pool=pool, error=error.message)
            return None

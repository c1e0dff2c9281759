"""What is remembered of pools beside their policy: shape, season, a person's override; and whether all is dry.

One owner, because they share a row: whoever wrote a row of its own would undo the others. In memory,
and in the ledger first. Refuses to interpret shape and season.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import orjson

from orchestrator.autoscaler.values import Override
from orchestrator.autoscaler.wire import dumps, loads
from orchestrator.ledger.values import ScalePoolRow
from tasks.clock import Clock

FLEET = "*"
"""Row of the whole fleet; no pool can be named so."""


class PoolBooks(Protocol):
    """The ledger."""

    async def scale_pools(self) -> list[ScalePoolRow]: ...
    async def save_scale_pool(self, row: ScalePoolRow) -> None: ...


class PoolBook:
    """Every pool of which something is remembered."""

    def __init__(self, *, books: PoolBooks, clock: Clock, is_dry: bool) -> None:
        self._books, self._clock, self._is_dry_by_file = books, clock, is_dry
        self._rows: dict[str, ScalePoolRow] = {}
        self._overrides: dict[str, Override] = {}
        self._is_dry: bool | None = None
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """What an earlier leader remembered.

        Raises:
            LedgerDown: nothing is known.
            UnreadableRecord: a row was written by another release.
        """
        self._rows = {row.pool: row for row in await self._books.scale_pools()}
        self._is_dry = None
        self._overrides = {}
        for row in self._rows.values():
            self._understand(row)

    @property
    def is_dry(self) -> bool:
        """Decide and say, order and end nothing: as an operator said last, else as the file does."""
        return self._is_dry_by_file if self._is_dry is None else self._is_dry

    def override(self, pool: str) -> Override | None:
        """The one that holds now."""
        found = self._overrides.get(pool)
        return found if found is not None and self._clock.wall_s() < found.until else None

    def overrides(self) -> Mapping[str, Override]:
        """By pool; those that hold now."""
        return {pool: held for pool in self._overrides if (held := self.override(pool)) is not None}

    def shape_json(self, pool: str) -> str | None:
        """What its nodes last offered."""
        row = self._rows.get(pool)
        return None if row is None else row.shape_json

    def season_json(self, pool: str) -> str | None:
        """Its day, as it was learned."""
        row = self._rows.get(pool)
        return None if row is None else row.season_json

    async def remember(self, pool: str, *, shape_json: str | None = None, season_json: str | None = None) -> None:
        """What is given; what is None stays as it was.

        Raises:
            LedgerDown, EpochLost: it was not kept.
        """

        def change(row: ScalePoolRow) -> ScalePoolRow:
            return replace(row, shape_json=shape_json or row.shape_json, season_json=season_json or row.season_json)

        await self._change(pool, change)

    async def set_override(self, pool: str, override: Override | None) -> None:
        """From now on, until it expires; None takes it back.

        Raises:
            LedgerDown, EpochLost: it does not hold.
        """
        text = None if override is None else dumps(override)
        await self._change(pool, lambda row: replace(row, override_json=text))

    async def set_dry(self, is_dry: bool) -> None:
        """Over restarts too: a fleet that was told to hold still must not wake up spending money.

        Raises:
            LedgerDown, EpochLost: it is as before.
        """
        text = orjson.dumps({"is_dry": is_dry}).decode()
        await self._change(FLEET, lambda row: replace(row, override_json=text))

    async def _change(self, pool: str, change: Callable[[ScalePoolRow], ScalePoolRow]) -> None:
        async with self._turn:
            before = self._rows.get(pool, ScalePoolRow(pool))
            row = change(before)
            if row != before:
                await self._books.save_scale_pool(row)
                self._rows[pool] = row
                self._understand(row)

    def _understand(self, row: ScalePoolRow) -> None:
        if row.pool == FLEET:
            self._is_dry = None if row.override_json is None else bool(orjson.loads(row.override_json)["is_dry"])
        elif row.override_json is None:
            self._overrides.pop(row.pool, None)
        else:
            self._overrides[row.pool] = loads(Override, row.override_json)

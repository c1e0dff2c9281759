"""Each pool's history, and a person's word on its size: as values, on top of the ledger's rows.

A history is saved now and then, an override before it counts. What cannot be read begins anew.
"""

from __future__ import annotations

import structlog

from orchestrator.autoscaler.history import History
from orchestrator.autoscaler.pool_book import PoolBook
from orchestrator.autoscaler.values import Override
from orchestrator.autoscaler.wire import UnreadableRecord, dumps, loads

log = structlog.get_logger("mcpfleet.autoscaler")


class PoolMemory:
    """Of every scaled pool."""

    def __init__(self, rows: PoolBook) -> None:
        self._rows = rows
        self._histories: dict[str, History] = {}

    async def load(self) -> None:
        """What an earlier leader remembered.

        Raises:
            LedgerDown: nothing is known.
        """
        await self._rows.load()
        self._histories = {}

    def history(self, pool: str) -> History:
        """As it was set last."""
        if pool not in self._histories:
            self._histories[pool] = self._read_history(pool)
        return self._histories[pool]

    def set_history(self, pool: str, history: History) -> None:
        """In memory."""
        self._histories[pool] = history

    async def save_histories(self) -> None:
        """Those that changed.

        Raises:
            LedgerDown, EpochLost: the rest is not saved.
        """
        for pool, history in list(self._histories.items()):
            await self._rows.note(pool, season_json=dumps(history))

    def override(self, pool: str, now: float) -> Override | None:
        """The one that holds now."""
        text = self._rows.of(pool).override_json
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
        await self._rows.note(pool, override_json=None if override is None else dumps(override))

    def _read_history(self, pool: str) -> History:
        text = self._rows.of(pool).season_json
        if text is None:
            return History()
        try:
            return loads(History, text)
        except UnreadableRecord as error:
            log.warning("history_unreadable", pool=pool, error=error.message)
            return History()

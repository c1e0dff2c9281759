"""Whether decisions are only shown: as an operator said last, else as the pools file does.

Kept beside what is remembered of pools, under a name that no pool can have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson

from orchestrator.ledger.values import ScalePoolRow

FLEET = "*"


class Rows(Protocol):
    """`PoolBook`."""

    def of(self, pool: str) -> ScalePoolRow: ...
    async def note(self, pool: str, **changes: Any) -> ScalePoolRow: ...  # noqa: ANN401 - JSON of any column


class DryRun:
    """Of the whole fleet. `tell` hears every change: the loop."""

    def __init__(self, rows: Rows, *, by_file: bool, tell: Callable[[bool], None] = lambda _is_on: None) -> None:
        self._rows, self._by_file, self._tell = rows, by_file, tell

    @property
    def is_on(self) -> bool:
        """Decide and say, order and end nothing."""
        text = self._rows.of(FLEET).override_json
        return self._by_file if text is None else bool(orjson.loads(text)["is_dry"])

    async def set(self, is_on: bool) -> None:
        """Over restarts too: a fleet that was told to hold still must not wake up spending money.

        Raises:
            LedgerDown, EpochLost: it is as before.
        """
        await self._rows.note(FLEET, override_json=orjson.dumps({"is_dry": is_on}).decode())
        self._tell(is_on)

"""Whether decisions are only shown: as an operator said last, else as the pools file does.

Kept beside what is remembered of pools, under a name that no pool can have.
"""

from __future__ import annotations

from typing import Protocol

import orjson

FLEET = "*"


class Memory(Protocol):
    """`PoolMemory`."""

    def shape_json(self, pool: str) -> str | None: ...
    async def set_shape(self, pool: str, shape_json: str) -> None: ...


class DryRun:
    """Of the whole fleet."""

    def __init__(self, memory: Memory, *, by_file: bool) -> None:
        self._memory, self._by_file = memory, by_file

    @property
    def is_on(self) -> bool:
        """Decide and say, order and end nothing."""
        text = self._memory.shape_json(FLEET)
        return self._by_file if text is None else bool(orjson.loads(text)["is_dry"])

    async def set(self, is_on: bool) -> None:
        """Over restarts too: a fleet that was told to hold still must not wake up spending money.

        Raises:
            LedgerDown, EpochLost: it is as before.
        """
        await self._memory.set_shape(FLEET, orjson.dumps({"is_dry": is_on}).decode())

"""Turns by node name: who joins, is expelled or trades a certificate waits for the others of that name alone."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Turns:
    """Locks by name, each kept while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __contains__(self, name: object) -> bool:
        return name in self._locks

    def of(self, name: str) -> asyncio.Lock:
        """The lock of this name."""
        return self._locks.setdefault(name, asyncio.Lock())

"""A heap of keys that can be re-ordered and removed, each in O(log n) amortised.

Removed rows stay in the list until they surface or outnumber the live ones. Refuses to compare keys:
equal orders come out in the order they were put in.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Generic, TypeVar

K = TypeVar("K")
Order = Any
"""Any one type whose values compare; None stands for "there is none"."""
Row = tuple[Order, int, K]

_SLACK_ROWS = 16
"""Dead rows tolerated however few live ones there are."""


class Heap(Generic[K]):
    """Least order first. Keys are hashable and stand in it once."""

    __slots__ = ("_live", "_rows", "_serial")

    def __init__(self) -> None:
        self._rows: list[Row[K]] = []
        self._live: dict[K, Row[K]] = {}
        self._serial = count()

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: K) -> bool:
        return key in self._live

    def __iter__(self) -> Iterator[K]:
        """In no order; do not change the heap meanwhile."""
        return iter(self._live)

    def put(self, key: K, order: Order) -> None:
        """Add the key, or give it a new order. The same order again keeps its place."""
        row = self._live.get(key)
        if row is not None and row[0] == order:
            return
        row = (order, next(self._serial), key)
        self._live[key] = row
        heappush(self._rows, row)
        self._compact()

    def discard(self, key: K) -> None:
        """Remove the key if it is there."""
        if self._live.pop(key, None) is not None:
            self._compact()

    def first(self) -> K | None:
        """The key with the least order; stays in."""
        row = self._first_row()
        return None if row is None else row[2]

    def first_order(self) -> Order:
        """The least order, or None."""
        row = self._first_row()
        return None if row is None else row[0]

    def pop(self) -> K | None:
        """The key with the least order, removed; None when empty."""
        row = self._first_row()
        if row is None:
            return None
        heappop(self._rows)
        del self._live[row[2]]
        return row[2]

    def pop_until(self, order: Order) -> list[K]:
        """Every key whose order is at most this, removed, least first."""
        taken: list[K] = []
        while (row := self._first_row()) is not None and row[0] <= order:
            heappop(self._rows)
            del self._live[row[2]]
            taken.append(row[2])
        return taken

    def _first_row(self) -> Row[K] | None:
        rows = self._rows
        while rows:
            row = rows[0]
            if self._live.get(row[2]) is row:
                return row
            heappop(rows)
        return None

    def _compact(self) -> None:
        if len(self._rows) > 2 * len(self._live) + _SLACK_ROWS:
            self._rows = list(self._live.values())
            heapify(self._rows)

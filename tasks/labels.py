"""Label values that cannot grow without an end: each one is a time series in every Prometheus that scrapes us."""

from __future__ import annotations

OTHER = "other"
TOOLS_MAX = 200
"""A histogram has 19 series for each. Which tools count under `other` beyond it, `mcpfleet ps --all` still tells."""
WORDS_MAX = 100
"""Of codes, reasons and the like: constant words, unless a peer is of another version, or lies."""


class Bounded:
    """The first so many values; what comes later is `other`."""

    __slots__ = ("_known", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        """The label that stands for it."""
        known = self._known
        if value in known:
            return value
        if len(known) >= self._most:
            return OTHER
        known.add(value)
        return value

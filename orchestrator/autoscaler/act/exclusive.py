"""One at a time per claim: its step, a decision's move and what a look found never overlap. In one event loop.

A provider's sweep holds a key as well, see `Actuator`: its machines are ended by one sweep at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Exclusive:
    """Held keys."""

    def __init__(self) -> None:
        self._held: set[str] = set()

    def is_held(self, key: str) -> bool:
        """Somebody works on it."""
        return key in self._held

    @contextmanager
    def hold(self, key: str) -> Iterator[bool]:
        """True if it is ours until the end; False, at once, where somebody has it."""
        if key in self._held:
            yield False
            return
        self._held.add(key)
        try:
            yield True
        finally:
            self._held.discard(key)

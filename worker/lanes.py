"""One lane of one node: what waits, in order, and what runs, at most `slots` at once.

Plain data without a loop or a clock. Refuses to know what a lease is: `execute` asks before it takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from tasks.invocation import Lane

W = TypeVar("W")


@dataclass(slots=True)
class LaneQueue(Generic[W]):
    """First in, first out."""

    slots: int
    waiting: deque[W] = field(default_factory=deque)
    returning: deque[Callable[[], None]] = field(default_factory=deque)
    """Of attempts that left their slot and want one again: they are told that they have it."""
    running: int = 0
    reserved: int = 0
    """Slots kept for claims that are not answered yet."""
    is_paused: bool = False
    """The pool's queue is not taken from, because no slot is free."""

    @property
    def has_room(self) -> bool:
        """A slot is free and nobody waits for it."""
        return self.running + self.reserved + len(self.returning) + len(self.waiting) < self.slots

    @property
    def can_take(self) -> bool:
        """Something waits and a slot is free."""
        return self.running < self.slots and bool(self.waiting)

    def seat(self) -> None:
        """Free slots to who comes back, before anything else is started."""
        while self.returning and self.running < self.slots:
            self.running += 1
            self.returning.popleft()()

    def take(self) -> W:
        """The next one to run, its slot taken. Ask `can_take` first."""
        self.running += 1
        return self.waiting.popleft()

    def release(self) -> None:
        """A slot is free again."""
        self.running -= 1

    def drop(self, work: W) -> bool:
        """Take one out of the queue, wherever it stands; False when it no longer waits."""
        try:
            self.waiting.remove(work)
        except ValueError:
            return False
        return True


class PoolGate(Protocol):
    """The pool's queue, taken from only while a slot is free (late binding)."""

    def pause(self, lane: Lane) -> None:
        """Take nothing more."""
        ...

    def resume(self, lane: Lane) -> None:
        """A slot is free."""
        ...

    def put_back(self, body: str, mac: str, lane: Lane) -> None:
        """For another node."""
        ...


class NoPool:
    """The gate of a node that consumes no pool's queue."""

    def pause(self, lane: Lane) -> None:
        """Nothing to pause."""

    def resume(self, lane: Lane) -> None:
        """Nothing to resume."""

    def put_back(self, body: str, mac: str, lane: Lane) -> None:
        """Dropped; the ledger releases it again."""

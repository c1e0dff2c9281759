"""Which dead letters are meant, and how many there are of each reason. Values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead letters a listing shows, or a count counts."""

    id: str | None = None
    """Of its Invocation."""
    reason: str | None = None
    tool: str | None = None
    project: str | None = None
    until: float | None = None
    """Ended at or before, wall clock: what came since is not meant."""
    is_unanswered: bool = False
    """Only those that were not replayed."""


EVERY = DeadFilter()


@dataclass(frozen=True, slots=True)
class DeadCount:
    """Dead letters of one reason."""

    reason: str
    letters: int
    replayed: int
    """Of them, replayed already."""

"""Dead letters, which of them are meant, and how many there are of each reason. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.outcome import ErrorInfo


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What ended badly and why; kept until replayed or discarded."""

    invocation_id: str
    tool: str
    project: str | None
    tenant: str
    ending: str
    reason: str
    error: ErrorInfo | None
    ended_at: float
    replayed_as: str | None


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

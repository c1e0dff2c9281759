"""A Placement: where an Invocation goes, and why."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.invocation import Lane


@dataclass(frozen=True, slots=True)
class Placement:
    """Release it now. `node` is None where any node of the pool may take it (late binding)."""

    pool: str
    node: str | None
    lane: Lane
    queue: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep it. Try again when `node` (or, if None, anything fitting) has room, or at `until_s`.

    `until_s` is on the monotonic clock; None waits for room however long that takes.
    """

    reasons: tuple[str, ...]
    node: str | None = None
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """No node that is joined could ever run it; it waits for one that can, and says so."""

    reasons: tuple[str, ...]

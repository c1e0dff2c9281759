"""Forgetting in time: ended Invocations past their days, what was spent, and blobs that no row refers to.

Run by the leader's loops, in slices with pauses between them, so that no call waits behind it. Owns when;
the ledger and the blob store know how. Idempotency keys and ids hold exactly as long as their row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from orchestrator.ledger.values import Purge, Purged
from tasks.clock import Clock

log = structlog.get_logger("mcpfleet.retention")
DAY_S = 86_400.0
SLICE_ROWS = 200
"""One transaction: a call's commit waits for it a few milliseconds at the most."""
PAUSE_S = 0.1
"""Between slices: 2,000 rows a second, above what a fleet accepts over a day."""
UNREFERRED_S = DAY_S
"""A blob is stored before the row that names it is committed, and a node tells its outcome later still."""
REFERENCES_PAGE = 5000
KEY_BYTES = 16
"""Of a digest, kept in memory while blobs are looked through; a collision only keeps a blob."""


class Books(Protocol):
    """The ledger."""

    async def purge(self, wanted: Purge) -> Purged: ...
    async def forget_spend(self, before: float, limit: int) -> int: ...
    async def blob_references(self, *, after: int, limit: int) -> tuple[list[str], int | None]: ...


class Blobs(Protocol):
    """The blob store."""

    async def forget(self, *, older_than: float, is_kept: Callable[[str], bool]) -> int: ...


@dataclass(frozen=True, slots=True)
class Days:
    """How long what ended is kept; 0 keeps it for ever.

    Attributes:
        ended: any Invocation, its attempts, and its idempotency key.
        dead: one with a dead letter that was neither replayed nor discarded.
        spend: what attempts spent on models; never shorter than the others, nor where one is for ever.
    """

    ended: float = 30.0
    dead: float = 90.0
    spend: float = 400.0


class Retention:
    """Three sweeps."""

    def __init__(self, *, books: Books, blobs: Blobs, days: Days, clock: Clock, pause_s: float = PAUSE_S) -> None:
        self._books, self._blobs, self._days, self._clock, self._pause_s = books, blobs, days, clock, pause_s

    async def forget_ended(self) -> None:
        """One pass over what is old enough.

        Raises:
            LedgerDown: the next pass begins anew.
        """
        if not self._days.ended:
            return
        now_s, deleted, after = self._clock.wall_s(), 0, 0
        ended_before = now_s - self._days.ended * DAY_S
        dead_s = max(self._days.dead, self._days.ended) * DAY_S if self._days.dead else float("inf")
        while True:
            purged = await self._books.purge(Purge(after, SLICE_ROWS, ended_before, now_s - dead_s))
            deleted += purged.deleted
            if purged.after is None:
                break
            after = purged.after
            await asyncio.sleep(self._pause_s)
        if deleted:
            log.info("ended_forgotten", invocations=deleted)

    async def forget_spend(self) -> None:
        """One pass over the books of what was spent.

        Raises:
            LedgerDown: the next pass begins anew.
        """
        kept = (self._days.spend, self._days.ended, self._days.dead)
        days = max(kept) if all(kept) else 0.0
        if not days:
            return  # where calls are kept for ever, so is what they cost
        before, deleted = self._clock.wall_s() - days * DAY_S, 0
        while gone := await self._books.forget_spend(before, SLICE_ROWS):
            deleted += gone
            await asyncio.sleep(self._pause_s)
        if deleted:
            log.info("spend_forgotten", rows=deleted)

    async def forget_blobs(self) -> None:
        """Delete what no row has referred to for a day.

        Raises:
            LedgerDown: nothing was deleted.
        """
        older_than = self._clock.wall_s() - UNREFERRED_S
        kept = await self._referred()
        deleted = await self._blobs.forget(older_than=older_than, is_kept=lambda digest: _key(digest) in kept)
        if deleted:
            log.info("blobs_forgotten", blobs=deleted)

    async def _referred(self) -> set[bytes]:
        kept: set[bytes] = set()
        after: int | None = 0
        while after is not None:
            digests, after = await self._books.blob_references(after=after, limit=REFERENCES_PAGE)
            kept.update(map(_key, digests))
        return kept


def _key(digest: str) -> bytes:
    return bytes.fromhex(digest)[:KEY_BYTES]

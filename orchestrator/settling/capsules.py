"""What nodes save of running sessions, noted for whoever may have to go on from it; what it replaces is released.

Owns no state: the ledger has the newest, the store the bytes. Refuses what does not come from the node that holds
the attempt now. A blob is deleted only where its first line says that it is a capsule of that very call: a node
may name any digest, also that of another call's result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from orchestrator.ledger.values import CapsuleKept, CapsuleSaved, Outstanding
from tasks.capsule import head_of
from tasks.ledger_events import Saved

log = structlog.get_logger("mcpfleet.settling")


class Books(Protocol):
    """The ledger."""

    async def keep_capsules(self, wanted: Sequence[CapsuleSaved]) -> list[CapsuleKept]: ...


class Attempts(Protocol):
    """The open attempts."""

    def current(self, invocation_id: str, fence: int) -> Outstanding | None: ...


class Blobs(Protocol):
    """The blob store."""

    async def release(self, digest: str, *, head: bytes) -> bool: ...


class Capsules:
    """Every capsule that a node tells of passes here."""

    def __init__(self, *, books: Books, attempts: Attempts, blobs: Blobs) -> None:
        self._books, self._attempts, self._blobs = books, attempts, blobs

    async def saved(self, events: Sequence[tuple[str, Saved]]) -> None:
        """Nodes saved these. One that cannot be taken is no loss: the next says more.

        Raises:
            LedgerDown: nothing was noted; call again with the same events.
        """
        wanted = [
            CapsuleSaved(event.invocation, event.fence, node, event.number, event.blob)
            for node, event in events
            if self._is_current(node, event)
        ]
        if not wanted:
            return
        for one, kept in zip(wanted, await self._books.keep_capsules(wanted), strict=True):
            if not kept.took:
                log.info("capsule_refused", invocation=one.invocation_id, fence=one.fence, node=one.node)
            elif kept.replaced not in {None, one.blob}:
                assert kept.replaced is not None
                await self._release(kept.replaced, one.invocation_id)

    def _is_current(self, node: str, event: Saved) -> bool:
        attempt = self._attempts.current(event.invocation, event.fence)
        is_current = attempt is not None and attempt.node == node
        if not is_current:
            log.info("capsule_refused", invocation=event.invocation, fence=event.fence, node=node)
        return is_current

    async def _release(self, digest: str, invocation_id: str) -> None:
        try:
            await self._blobs.release(digest, head=head_of(invocation_id))
        except OSError as error:
            log.warning("capsule_not_released", sha256=digest, detail=str(error), effect="it goes within a day or two")

"""Where one attempt saves its session, and what an earlier attempt saved of it.

Owns the order: the blob is in the store before anybody is told of it. Refuses to try again: what is saved next
says more. What a capsule holds is `worker/sidecars/capsule.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from worker.blobs import Blobs

WHAT = "what was saved of its session"


@dataclass(frozen=True, slots=True)
class SessionKeeping:
    """Of one attempt. See `Keeping` in worker/upstreams/upstream.py."""

    node: str
    fence: int
    limit_bytes: int
    left: str | None
    spent_usd: float | None
    blobs: Blobs
    tell: Callable[[int, str], None]
    """Number and digest, to the orchestrator."""
    until: float | None

    async def fetch(self) -> bytes:
        """Raises UpstreamError: NOT_STARTED when the store does not answer, PERMANENT when it has not got it."""
        assert self.left is not None, "nothing was left"
        return await self.blobs.fetch(self.left, WHAT)

    async def save(self, number: int, data: bytes) -> None:
        """Raises OrchestratorDown, NotAllowed or Refused."""
        self.tell(number, await self.blobs.bring(data))

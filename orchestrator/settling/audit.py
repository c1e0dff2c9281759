"""What waits in the ledger and in nobody's memory: looked for all the time, a page at a time.

Every way that is known to lead there notes a doubt by itself. This finds those that are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from orchestrator.ledger.values import Waiting
from tasks.clock import Clock

log = structlog.get_logger("mcpfleet.settling")
PAGE = 1000
SETTLES_WITHIN_S = 5.0
"""Between the commit of an acceptance and its place in memory."""


class Books(Protocol):
    """The ledger."""

    async def waiting(self, *, after: str | None = None, limit: int = 1000) -> Sequence[Waiting]: ...


class Audit:
    """One page at every call of `look`, then from the start again."""

    def __init__(
        self, *, books: Books, knows: Callable[[str], bool], doubt: Callable[[str], None], clock: Clock
    ) -> None:
        self._books, self._knows, self._doubt, self._clock = books, knows, doubt, clock
        self._after: str | None = None

    async def look(self) -> None:
        """Doubt what is there and not here.

        Raises:
            LedgerDown: the ledger does not answer.
        """
        page = await self._books.waiting(after=self._after, limit=PAGE)
        self._after = page[-1].id if len(page) == PAGE else None
        long_ago = self._clock.wall_s() - SETTLES_WITHIN_S
        for call in page:
            if call.accepted_at < long_ago and not self._knows(call.id):
                log.warning("waiting_unknown", invocation=call.id)
                self._doubt(call.id)

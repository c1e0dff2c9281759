"""Invocations whose row and whose place in memory may differ: a read failed, a commit's answer was lost.

Whoever is in doubt notes the id; the leader's loop reads the ledger and puts it where it belongs. The
ledger decides, memory follows.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from orchestrator.ledger.values import Outstanding, Waiting
from orchestrator.settling.waiting import as_waiting
from tasks.errors import FleetError, LedgerDown, NotFound
from tasks.invocation import OUTSTANDING, Invocation, State

log = structlog.get_logger("mcpfleet.settling")


class Books(Protocol):
    """The ledger."""

    async def get(self, invocation_id: str, tenant: str | None = None) -> Invocation: ...
    async def outstanding(self) -> list[Outstanding]: ...


class Attempts(Protocol):
    """The open attempts."""

    def __contains__(self, invocation_id: object) -> bool: ...
    def add(self, attempt: Outstanding) -> None: ...


class Backlog(Protocol):
    """What waits."""

    def offer(self, waiting: Waiting) -> None: ...
    def knows(self, invocation_id: str) -> bool: ...


class Doubts:
    """A set of ids to look up. `backlog` is set once, right after both were made."""

    backlog: Backlog

    def __init__(self, *, books: Books, attempts: Attempts) -> None:
        self._books, self._attempts = books, attempts
        self._ids: set[str] = set()

    def note(self, invocation_id: str) -> None:
        """This one has to be looked up."""
        self._ids.add(invocation_id)

    def has(self, invocation_id: str) -> bool:
        """It will be looked up: until then memory says nothing about it."""
        return invocation_id in self._ids

    async def resolve(self) -> None:
        """Look up what was noted. What cannot be read now stays noted.

        Raises:
            LedgerDown: the ledger does not answer.
        """
        lost: set[str] = set()
        for invocation_id in list(self._ids):
            try:
                invocation = await self._books.get(invocation_id)
            except LedgerDown:
                raise
            except FleetError as error:  # there is none, or it ended and its result does not open
                if not isinstance(error, NotFound):
                    log.warning("doubt_not_readable", invocation=invocation_id, error=error.message)
                self._ids.discard(invocation_id)
                continue
            if invocation.state is State.WAITING and not self.backlog.knows(invocation_id):
                log.info("doubt_resolved", invocation=invocation_id, state=invocation.state)
                self.backlog.offer(as_waiting(invocation))
            elif invocation.state in OUTSTANDING and invocation_id not in self._attempts:
                lost.add(invocation_id)
                continue
            self._ids.discard(invocation_id)
        if lost:
            await self._adopt(lost)

    async def _adopt(self, lost: set[str]) -> None:
        for attempt in await self._books.outstanding():
            if attempt.invocation_id in lost and attempt.invocation_id not in self._attempts:
                log.info("doubt_resolved", invocation=attempt.invocation_id, state=attempt.state)
                self._attempts.add(attempt)
        self._ids -= lost

"""The newest calls of the ledger, for Flower's feed, whose thread is not the event loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from orchestrator.ledger.values import Filter
from tasks.errors import LedgerDown
from tasks.invocation import Invocation

PAGE_CALLS = 200
"""Small, so that no reader of the ledger is held up for long."""
ANSWER_S = 30.0


class Books(Protocol):
    """The ledger."""

    async def listing(
        self, where: Filter, *, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Invocation], str | None]: ...


def newest_calls(books: Books, limit: int, loop: asyncio.AbstractEventLoop) -> Callable[[], Sequence[Invocation]]:
    """A question that a thread may ask: the newest `limit` calls, oldest first.

    It raises LedgerDown where the ledger does not answer in time.
    """

    def ask() -> Sequence[Invocation]:
        asked = asyncio.run_coroutine_threadsafe(_newest(books, limit), loop)
        try:
            return asked.result(ANSWER_S)
        except TimeoutError as error:
            asked.cancel()
            raise LedgerDown(f"no answer within {ANSWER_S:.0f} s") from error

    return ask


async def _newest(books: Books, limit: int) -> list[Invocation]:
    found: list[Invocation] = []
    cursor: str | None = None
    while len(found) < limit:
        page, cursor = await books.listing(Filter(), cursor=cursor, limit=min(PAGE_CALLS, limit - len(found)))
        found += page
        if cursor is None:
            break
    return found[::-1]

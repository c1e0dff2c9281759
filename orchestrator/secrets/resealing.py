"""Rows of the ledger under the newest key: calls' texts, questions to people, OAuth's signing keys.

In the background, slice by slice, with a pause after each: calls go on beside it. Nothing is remembered of how far it
came, because each row says under which key it is: cut off, it is begun again and finds what is left. Refuses to decide
when: whoever has put a new key into the file says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import structlog

from orchestrator.ledger.secret_values import Change, Found, Resealed, Text
from orchestrator.secrets.keyring import KeyRing, kid_of
from tasks.errors import FleetError, LedgerDown, Unopened

log = structlog.get_logger("mcpfleet.secrets")
PAUSE_S = 0.05
RETRY_S = 5.0
LOGGED_MAX = 20
"""Lines about rows that do not open, of one pass: with a lost key they are all of them."""


class Shelf(Protocol):
    """One table of the ledger with sealed texts."""

    @property
    def key(self) -> str:
        """Column by which a row is found."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """In which texts are."""
        ...

    @property
    def texts(self) -> Callable[[dict[str, Any], str], Iterator[Text]]:
        """The sealed ones in a column of a row."""
        ...

    async def find(self, newest: str, after: int) -> Found: ...
    async def put(self, changes: Sequence[Change]) -> int: ...


class Resealing:
    """One pass at a time, while this orchestrator leads."""

    def __init__(self, shelves: Sequence[Shelf], keys: KeyRing, *, pause_s: float = PAUSE_S) -> None:
        self.so_far = Resealed()
        self._shelves, self._keys, self._pause_s = shelves, keys, pause_s
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin a pass; while one runs, that is the one."""
        if self._task is None or self._task.done():
            self.so_far = Resealed(is_running=True)
            self._task = asyncio.create_task(self._run())

    async def ended(self) -> Resealed:
        """Once the pass that runs is over."""
        if self._task is not None:
            await asyncio.wait({self._task})
        return self.so_far

    async def _run(self) -> None:
        stopped = None
        try:
            for shelf in self._shelves:
                await self._pass(shelf)
        except FleetError as error:
            stopped = error.message
        except Exception:
            stopped = "an error of the orchestrator; its log has the traceback"
            log.exception("reseal_failed")
        self.so_far = replace(self.so_far, is_running=False, stopped=stopped)
        so_far = self.so_far
        log.info("rows_resealed", key=self._keys.newest, texts=so_far.texts, unopened=so_far.unopened, stopped=stopped)

    async def _pass(self, shelf: Shelf) -> None:
        after: int | None = 0
        while after is not None:
            try:
                found = await shelf.find(self._keys.newest, after)
                changes, texts, unopened = await asyncio.to_thread(self._wrapped, shelf, found.rows)
                await shelf.put(changes)
            except LedgerDown as error:
                log.warning("reseal_waits", error=error.message, again_in_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
                continue
            after, now = found.after, self.so_far
            self.so_far = replace(now, texts=now.texts + texts, unopened=now.unopened + unopened)
            await asyncio.sleep(self._pause_s)

    def _wrapped(self, shelf: Shelf, rows: Sequence[dict[str, Any]]) -> tuple[list[Change], int, int]:
        """On a thread: what is to be written, how many texts that is, and how many do not open."""
        changes: list[Change] = []
        texts = unopened = 0
        for row in rows:
            for column in shelf.columns:
                old = new = row[column] or ""
                for text in shelf.texts(row, column):
                    if kid_of(text.sealed) == self._keys.newest:
                        continue
                    try:
                        new = new.replace(text.sealed, self._keys.rewrap(text.sealed, aad=text.aad))
                        texts += 1
                    except Unopened as error:
                        unopened += 1
                        if self.so_far.unopened + unopened <= LOGGED_MAX:
                            log.warning("row_not_resealed", row=row[shelf.key], column=column, why=error.message)
                if new != old:
                    changes.append(Change(column, row[shelf.key], old, new))
        return changes, texts, unopened

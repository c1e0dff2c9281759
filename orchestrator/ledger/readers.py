"""Reading beside the writer: a few threads, each with a connection of its own.

Refuses to write. What a reader sees was committed; each statement sees one moment.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from orchestrator.ledger.database import Database
from orchestrator.ledger.transaction import Tx
from tasks.errors import LedgerDown

THREADS = 4
"""SQLite reads in parallel under WAL; more threads would only fight for the interpreter."""

T = TypeVar("T")


class Reader:
    """One connection, for fixed statements (`tx`) and for those that are built (`core`)."""

    def __init__(self, database: Database) -> None:
        self.core: Connection = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self.tx: Tx = database.transaction_on(self.core)

    def close(self) -> None:
        """Give the connection back to the driver, whatever its state."""
        self.core.invalidate()
        self.core.close()


class Readers:
    """The pool. Used on the event loop; work runs on its threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mcpfleet-ledger-reader")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._open: list[Reader] = []
        self._is_closed = False

    async def run(self, read: Callable[[Reader], T]) -> T:
        """Run `read` on a thread.

        Raises:
            LedgerDown: the database does not answer, or the ledger was closed.
        """
        if self._is_closed:
            raise LedgerDown("it was closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, read)

    async def close(self) -> None:
        """Let what runs finish, then close every connection."""
        self._is_closed = True
        await asyncio.to_thread(self._pool.shutdown)
        while self._open:
            self._open.pop().close()

    def _read(self, read: Callable[[Reader], T]) -> T:
        had_one = getattr(self._own, "reader", None) is not None
        try:
            return read(self._reader())
        except Exception as error:
            if not self._is_down(error):
                raise
            self._drop()
            if had_one:
                # It may have died since the last read: a fresh one decides.
                return self._read(read)
            raise LedgerDown(str(error).strip().partition("\n")[0]) from error

    def _reader(self) -> Reader:
        reader: Reader | None = getattr(self._own, "reader", None)
        if reader is None:
            reader = self._own.reader = Reader(self._database)
            with self._lock:
                self._open.append(reader)
        return reader

    def _drop(self) -> None:
        reader: Reader | None = getattr(self._own, "reader", None)
        self._own.reader = None
        if reader is not None:
            with self._lock:
                self._open.remove(reader)
            reader.close()

    def _is_down(self, error: Exception) -> bool:
        return self._database.is_down(error) or (isinstance(error, DBAPIError) and error.connection_invalidated)

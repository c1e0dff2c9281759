"""What this node started and what ended, kept on disk until the orchestrator says *settled*.

One SQLite file per node name. Every operation of one turn of the event loop is committed in one
transaction (17 µs a call at 8 calls a turn, 88 µs alone). Refuses to be opened twice, to judge
deliveries, and to hide that the disk refuses: `trouble` says so and the node then starts nothing.

A commit survives `kill -9`, not a power cut (WAL, synchronous=NORMAL: no fsync per commit, which
would cost 0.3 ms of CPU and a disk's latency per call). So after a boot that followed an unclean end the
journal does not claim to be complete: `resumes` is None and the orchestrator takes everything that
was outstanding here as possibly started.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import NewType

import structlog

from tasks.errors import Permanent, Retryable

Entry = NewType("Entry", int)
"""One row of the journal."""
PAGE_BYTES = 4096
CHECKPOINT_BYTES = 8 * 1024 * 1024
"""Written to the WAL before it is folded back: every few seconds at 1,000 calls a second."""
UNSTARTED_MAX = 100
"""Incarnations in a row that die while they join; the orchestrator knows one of the last."""
FORGET_WITHIN_S = 0.05
"""Saves a light load one of its three commits per call."""
_PROBE = "INSERT OR REPLACE INTO meta VALUES ('probe', hex(zeroblob(2048)))"
"""As much as a call needs: a file that exists and is empty says nothing about the disk."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
  id INTEGER PRIMARY KEY, invocation TEXT NOT NULL, fence INTEGER NOT NULL, started_at REAL, finished BLOB
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
_log = structlog.get_logger()


class JournalInUse(Permanent):
    """Another process holds this node's journal."""

    code = "journal_in_use"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the journal {path} is in use: another mcpfleet-worker with this name runs on this machine; "
            "stop it, or choose another --name"
        )


class JournalUnusable(Permanent):
    """The journal cannot be opened at all."""

    code = "journal_unusable"

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(
            f"the journal {path} cannot be used ({detail}); check that the directory is writable and the disk "
            "not full, or set MCPFLEET_NODE_STATE_DIR"
        )


class JournalFailed(Retryable):
    """A commit was refused: disk full, input/output error."""

    code = "journal_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(f"the node's journal could not be written ({detail}); free some disk space on the node")


@dataclass(frozen=True, slots=True)
class Kept:
    """One recovered row. `finished` is a packed list with the one `Finished` event."""

    entry: Entry
    invocation: str
    fence: int
    started_at: float | None
    finished: bytes | None


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an earlier process of this node left behind."""

    resumes: str | None
    """Its incarnation, where the journal provably holds everything it started."""
    interrupted: tuple[Kept, ...]
    finished: tuple[Kept, ...]
    unstarted: tuple[str, ...]
    """Incarnations since then that may have joined, and died before they made this journal theirs."""


class Journal:
    """The open journal of one node. All methods belong to the event loop's thread."""

    def __init__(self, db: sqlite3.Connection, recovered: Recovered, next_id: int) -> None:
        self.recovered = recovered
        self.trouble: str | None = None
        """Why the last commit was refused; None when all is well."""
        self._db = db
        self._next_id = next_id
        self._inserts: list[tuple[int, str, int, float | None, bytes | None]] = []
        self._updates: list[tuple[bytes, int]] = []
        self._deletes: list[tuple[int]] = []
        self._adoption: list[tuple[str, str]] = []
        self._turn: asyncio.Future[None] | None = None
        self._is_scheduled = False
        self._unfolded_bytes = 0
        self._fold: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._is_closed = False

    @classmethod
    def open(cls, path: Path, *, boot_id: str) -> Journal:
        """Open or create the journal, and read what an earlier process left.

        Args:
            path: one file per node name; its directory exists.
            boot_id: changes with every boot of the machine.

        Raises:
            JournalInUse, JournalUnusable
        """
        try:
            db = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
            # Exclusive before WAL: no shared memory, fewer system calls, and the file's lock is ours for life.
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA wal_autocheckpoint=0")
            db.execute("BEGIN IMMEDIATE")
            db.execute("COMMIT")
            db.executescript(_SCHEMA)
            db.execute(_PROBE)
            recovered = _recover(db, boot_id)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise JournalInUse(path) from None
            raise JournalUnusable(path, str(error)) from error
        except sqlite3.DatabaseError as error:
            raise JournalUnusable(path, str(error)) from error
        kept = recovered.interrupted + recovered.finished
        return cls(db, recovered, 1 + max((row.entry for row in kept), default=0))

    def joining(self, incarnation: str) -> None:
        """Call before the join: should we die before `adopt`, the next process knows that we started nothing."""
        names = [*self.recovered.unstarted, incarnation][-UNSTARTED_MAX:]
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('unstarted', ?)", (" ".join(names),))

    def adopt(self, incarnation: str, boot_id: str) -> None:
        """From now on this journal is that of `incarnation`. Call when joined, before any work.

        What was interrupted has been told to the orchestrator by the join and is forgotten here. On a full
        disk this waits with the rest: until it is written `trouble` is set, and nothing starts.
        """
        self._deletes += [(row.entry,) for row in self.recovered.interrupted]
        self._adoption = [("incarnation", incarnation), ("boot_id", boot_id), ("closed", ""), ("unstarted", "")]
        self._flush()

    def started(self, invocation: str, fence: int, at: float) -> tuple[Entry, asyncio.Future[None]]:
        """Await the future before the tool is called. Never cancel it: the whole turn shares it.

        The future raises JournalFailed.
        """
        entry = self._take_id()
        self._inserts.append((entry, invocation, fence, at, None))
        return entry, self._commit_soon()

    def finished(
        self, entry: Entry | None, invocation: str, fence: int, event: bytes
    ) -> tuple[Entry, asyncio.Future[None]]:
        """Keep an outcome; `entry` is None where the tool never started.

        The future raises JournalFailed; the outcome of what started is then written as soon as that works.
        """
        if entry is None:
            entry = self._take_id()
            self._inserts.append((entry, invocation, fence, None, event))
        else:
            self._updates.append((event, entry))
        return entry, self._commit_soon()

    def forget(self, entry: Entry) -> None:
        """Settled, or superseded. Written with the next commit, or soon: one forgotten late is only told twice."""
        self._deletes.append((entry,))
        if self._later is None and not self._is_scheduled:
            self._later = asyncio.get_running_loop().call_later(FORGET_WITHIN_S, self._schedule)

    def probe(self) -> None:
        """Try a write after trouble, so that a disk with room again is noticed."""
        if self.trouble is not None:
            self._commit_soon().add_done_callback(_retrieve)

    async def close(self) -> None:
        """Commit what is pending, and say that the end was clean."""
        self._is_closing = True
        if self._fold is not None:
            await self._fold
        self._flush()
        self._is_closed = True
        try:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('closed', 'yes')")
        except sqlite3.Error as error:
            _log.warning("journal_close_failed", detail=str(error))
        self._db.close()

    def _take_id(self) -> Entry:
        entry = Entry(self._next_id)
        self._next_id += 1
        return entry

    def _commit_soon(self) -> asyncio.Future[None]:
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
        self._schedule()
        return self._turn

    def _schedule(self) -> None:
        if not self._is_scheduled and self._fold is None:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        if self._is_closed:
            return
        if self._later is not None:
            self._later.cancel()
            self._later = None
        turn, self._turn = self._turn, None
        try:
            self._write()
        except sqlite3.Error as error:
            self._refused(str(error), turn)
        else:
            if self.trouble is not None:
                _log.info("journal_works_again")
                self.trouble = None
            if turn is not None and not turn.done():
                turn.set_result(None)
            if self._unfolded_bytes > CHECKPOINT_BYTES and not self._is_closing:
                self._start_fold()

    def _write(self) -> None:
        execute, executemany = self._db.execute, self._db.executemany
        execute("BEGIN")
        try:
            if self._adoption:
                executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", self._adoption)
            if self._inserts:
                executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", self._inserts)
            if self._updates:
                executemany("UPDATE entry SET finished = ? WHERE id = ?", self._updates)
            if self._deletes:
                executemany("DELETE FROM entry WHERE id = ?", self._deletes)
            if self.trouble is not None:
                execute(_PROBE)
            execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                execute("ROLLBACK")
            raise
        outcomes_bytes = sum(len(event) for event, _ in self._updates)
        self._unfolded_bytes += PAGE_BYTES * (1 + len(self._inserts) // 32) + outcomes_bytes
        self._adoption.clear()
        self._inserts.clear()
        self._updates.clear()
        self._deletes.clear()

    def _refused(self, detail: str, turn: asyncio.Future[None] | None) -> None:
        """Nothing of the turn was kept. No call starts; what ended meanwhile is written once there is room."""
        if self.trouble is None:
            _log.error(
                "journal_refused", detail=detail, effect="this node starts nothing until it can be written again"
            )
        self.trouble = detail
        self._inserts.clear()
        if turn is not None and not turn.done():
            turn.set_exception(JournalFailed(detail))

    def _start_fold(self) -> None:
        """Fold the WAL back in another thread: its fsync may take as long as the disk likes."""
        self._unfolded_bytes = 0
        self._fold = asyncio.get_running_loop().create_task(self._run_fold())

    def _checkpoint(self) -> None:
        """In another thread, while nobody else uses the connection."""
        # Fetched: a statement with a row left is still in progress, and the next COMMIT would be refused.
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    async def _run_fold(self) -> None:
        try:
            await asyncio.to_thread(self._checkpoint)
        except sqlite3.Error as error:
            _log.warning("journal_checkpoint_failed", detail=str(error))
        finally:
            self._fold = None
            if self._inserts or self._updates or self._deletes or self._turn is not None:
                self._schedule()


def _recover(db: sqlite3.Connection, boot_id: str) -> Recovered:
    rows = [Kept(Entry(row[0]), *row[1:]) for row in db.execute("SELECT * FROM entry ORDER BY id")]
    meta: dict[str, str] = dict(db.execute("SELECT name, value FROM meta"))
    is_complete = meta.get("closed") == "yes" or meta.get("boot_id") == boot_id
    return Recovered(
        resumes=meta.get("incarnation") if is_complete else None,
        interrupted=tuple(row for row in rows if row.finished is None),
        finished=tuple(row for row in rows if row.finished is not None),
        unstarted=tuple((meta.get("unstarted") or "").split()),
    )


def _retrieve(turn: asyncio.Future[None]) -> None:
    turn.exception()

"""Group commit: one thread, one connection, and one transaction for everything that is pending.

Callers on the event loop submit operations and await their futures. Whatever was submitted while the
thread was busy becomes the next group; within it, operations of one kind are run together, so a
commit and a statement are shared by all of them. Refuses to know what the operations do.

A group's fate:

* an operation may answer with a `FleetError`: it alone fails, having written nothing;
* a group in which something was raised is rolled back, and its operations run again one by one: only
  the one that raises again fails;
* when the database does not answer, the whole group fails with `LedgerDown`, and the next group
  connects anew. Where only the commit's own answer was lost, PostgreSQL may have kept the group.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from orchestrator.ledger.database import Database, Session
from orchestrator.ledger.errors import Unstorable
from orchestrator.ledger.transaction import Tx
from tasks.errors import FleetError, LedgerDown

GROUP_MAX = 1000
"""Operations in one transaction: bounds how long the first of them waits for its neighbours."""

P = TypeVar("P")
R = TypeVar("R")
_log = structlog.get_logger("mcpfleet.ledger")


@dataclass(frozen=True, slots=True, eq=False)
class Kind(Generic[P, R]):
    """One kind of operation: runs many callers' payloads at once, and answers each."""

    name: str
    run: Callable[[Tx, Sequence[P]], Sequence[R | FleetError]]


@dataclass(slots=True, eq=False)
class _Op:
    kind: Kind[Any, Any]
    payload: Any
    future: asyncio.Future[Any]
    answer: Any = None
    """A value, or the exception to raise."""


class GroupCommit:
    """The writer. Made, used and closed on one event loop."""

    def __init__(self, database: Database, order: Sequence[Kind[Any, Any]]) -> None:
        """Start the thread.

        Args:
            database: where to connect, at the first group.
            order: every kind there is, in the order in which a group runs them.
        """
        self._database = database
        self._order = tuple(order)
        self._loop = asyncio.get_running_loop()
        self._turn: list[_Op] = []
        self._inbox: queue.SimpleQueue[list[_Op] | None] = queue.SimpleQueue()
        self._is_closed = False
        self._session: Session | None = None
        self.guard: Callable[[Tx], FleetError | None] | None = None
        """Asked first in every transaction: what it answers is every operation's, and nothing is written."""
        self._thread = threading.Thread(target=self._run, name="mcpfleet-ledger", daemon=True)
        self._thread.start()

    def submit(self, kind: Kind[P, R], payload: P) -> asyncio.Future[R]:
        """Queue one operation; the future is done after its commit.

        Raises:
            LedgerDown: it was closed.
        """
        if self._is_closed:
            raise LedgerDown("it was closed")
        future: asyncio.Future[R] = self._loop.create_future()
        if not self._turn:
            # Handed over at the end of this loop turn, so that one turn's operations stay together.
            self._loop.call_soon(self._hand_over)
        self._turn.append(_Op(kind, payload, future))
        return future

    async def close(self) -> None:
        """Finish what was submitted, then end the thread. Later operations fail."""
        if self._is_closed:
            return
        self._is_closed = True
        self._hand_over()
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        if self._turn:
            self._inbox.put(self._turn)
            self._turn = []

    def _run(self) -> None:
        is_open = True
        while is_open:
            ops, is_open = self._next_group()
            try:
                self._commit_group(ops)
            except Exception as error:  # noqa: BLE001 - top of the loop
                _log.exception("ledger.group_failed", operations=len(ops))
                for op in ops:
                    op.answer = error
            self._resolve(ops)
        self._drop_session()

    def _next_group(self) -> tuple[list[_Op], bool]:
        """Wait for one loop turn's operations, and take what else is there; False once closed."""
        ops: list[_Op] = []
        turn = self._inbox.get()
        while turn is not None:
            # A caller that was cancelled meanwhile is told nothing, so nothing is done for it.
            ops.extend(op for op in turn if not op.future.cancelled())
            if len(ops) >= GROUP_MAX:
                return ops, True
            try:
                turn = self._inbox.get_nowait()
            except queue.Empty:
                return ops, True
        return ops, False

    def _commit_group(self, ops: list[_Op]) -> None:
        error = self._try(ops) if ops else None
        if error is None:
            return
        if self._database.is_down(error):
            self._fail(ops, error)
            return
        for done, op in enumerate(ops):
            error = self._try([op])
            if error is not None and self._database.is_down(error):
                self._fail(ops[done:], error)
                return
            if error is not None:
                op.answer = self._refusal(op, error)

    def _fail(self, ops: list[_Op], error: Exception) -> None:
        """The database is down for all of these; the next group connects anew."""
        detail = _one_line(error)
        _log.warning("ledger.down", detail=detail, operations=len(ops))
        self._drop_session()
        for op in ops:
            op.answer = LedgerDown(detail)

    def _refusal(self, op: _Op, error: Exception) -> Exception:
        """What the caller of an operation that failed by itself is told."""
        if isinstance(error, FleetError):
            return error
        _log.error("ledger.operation_failed", operation=op.kind.name, exc_info=error)
        return Unstorable(op.kind.name, _one_line(error)) if self._database.is_refusal(error) else error

    def _try(self, ops: list[_Op]) -> Exception | None:
        """Run one transaction; what stopped it, after it was rolled back."""
        was_connected = self._session is not None
        try:
            session = self._session = self._session or self._database.session()
            session.begin()
            refusal = self.guard(session.tx) if self.guard else None
            if refusal is None:
                self._run_kinds(session.tx, ops)
            else:
                for op in ops:
                    op.answer = refusal
        except Exception as error:  # noqa: BLE001 - answered to the operations by the caller
            if self._undo() and was_connected:
                return self._try(ops)  # A connection that had died unnoticed; nothing was committed on it.
            return error
        try:
            session.commit()
        except Exception as error:  # noqa: BLE001 - as above
            self._undo()
            return error
        return None

    def _run_kinds(self, tx: Tx, ops: list[_Op]) -> None:
        by_kind: dict[Kind[Any, Any], list[_Op]] = {}
        for op in ops:
            by_kind.setdefault(op.kind, []).append(op)
        for kind in self._order:
            if same := by_kind.get(kind):
                answers = kind.run(tx, [op.payload for op in same])
                for op, answer in zip(same, answers, strict=True):
                    op.answer = answer

    def _undo(self) -> bool:
        """Roll back; True if the connection turned out to be gone."""
        if self._session is None:
            return False
        try:
            self._session.rollback()
        except Exception as error:  # noqa: BLE001 - the connection is dropped, and the cause is known already
            _log.info("ledger.rollback_failed", detail=_one_line(error))
            self._drop_session()
            return True
        if self._session.is_broken():
            self._drop_session()
            return True
        return False

    def _drop_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _resolve(self, ops: list[_Op]) -> None:
        if not ops:
            return
        try:
            self._loop.call_soon_threadsafe(_tell, ops)
        except RuntimeError:
            _log.warning("ledger.loop_closed", operations=len(ops))


def _tell(ops: Sequence[_Op]) -> None:
    for op in ops:
        if op.future.done():
            continue
        if isinstance(op.answer, BaseException):
            op.future.set_exception(op.answer)
        else:
            op.future.set_result(op.answer)


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

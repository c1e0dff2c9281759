"""Outcomes the orchestrator has not acknowledged: on disk, then reported, then forgotten.

The order is what makes them safe: a large result is a file first, then the outcome is journaled, then
it is sent, and only *settled* deletes it. Refuses to decide what an outcome is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from tasks.ledger_events import Finished, unpack
from worker.admit import Ref
from worker.blobs import Blobs
from worker.journal import Entry, Journal, Kept
from worker.reporter import Reporter

_log = structlog.get_logger()


class Unsettled:
    """The outcomes of one incarnation, and those an earlier one left."""

    def __init__(self, journal: Journal, reporter: Reporter, blobs: Blobs) -> None:
        self._journal = journal
        self._reporter = reporter
        self._blobs = blobs
        self._kept: dict[Ref, Kept] = {}
        self._uploads: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, ref: Ref) -> bool:
        return ref in self._kept

    def refs(self) -> Iterable[Ref]:
        """What the inventory lists as finished."""
        return self._kept.keys()

    def keep(self, ref: Ref, entry: Entry | None, event: bytes, kept: Callable[[], bool]) -> None:
        """Journal an outcome, then report it.

        Args:
            ref: the attempt.
            entry: its row, None where the tool never started.
            event: a packed list of the one Finished.
            kept: asked after the commit; False when it was superseded meanwhile and is to be forgotten.
        """
        row, committed = self._journal.finished(entry, *ref, event)

        def then(turn: asyncio.Future[None]) -> None:
            if not turn.cancelled() and turn.exception() is not None and entry is not None:
                effect = "it is reported all the same, and written when the disk has room"
                _log.error("outcome_not_journaled", invocation=ref[0], fence=ref[1], effect=effect)
            if kept():
                self._kept[ref] = Kept(row, *ref, None, event)
                self._report(ref, event)
            else:
                self._journal.forget(row)

        committed.add_done_callback(then)

    def recover(self, rows: Iterable[Kept]) -> None:
        """Report again what an earlier process finished and nobody acknowledged. The first thing asked for."""
        rows = list(rows)
        strays = self._blobs.drop_all_but({blob for row in rows if (blob := _blob_of(row.finished or b""))})
        if strays:
            _log.info("stray_results_dropped", files=strays)
        for row in rows:
            assert row.finished is not None, "only finished rows are reported"
            ref = (row.invocation, row.fence)
            self._kept[ref] = row
            self._report(ref, row.finished)

    def forget(self, ref: Ref) -> None:
        """Settled or superseded; unknown ones are ignored."""
        kept = self._kept.pop(ref, None)
        if kept is None:
            return
        self._reporter.settled(ref)
        self._journal.forget(kept.entry)
        blob = _blob_of(kept.finished or b"")
        if blob is not None:
            self._blobs.drop(blob)

    def _report(self, ref: Ref, event: bytes) -> None:
        blob = _blob_of(event)
        if blob is None:
            self._reporter.finished(ref, event)
            return
        task = asyncio.get_running_loop().create_task(self._upload(ref, event, blob))
        self._uploads.add(task)
        task.add_done_callback(self._uploads.discard)

    async def _upload(self, ref: Ref, event: bytes, blob: str) -> None:
        try:
            await self._blobs.upload(blob)
        except Exception:  # noqa: BLE001 - the top of a task's body
            _log.exception("result_not_uploaded", invocation=ref[0], sha256=blob)
        if ref in self._kept:
            self._reporter.finished(ref, event)


def _blob_of(event: bytes) -> str | None:
    """The result's blob in a packed list of one Finished; inline results are not parsed."""
    if not event or b'"b":null' in event:
        return None
    finished = unpack(event)[0]
    return finished.outcome.result_blob if isinstance(finished, Finished) else None

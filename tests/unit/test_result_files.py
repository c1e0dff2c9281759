"""Large results on a node's disk: each has an outcome that names it, or goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tasks.ledger_events import Finished, pack
from tasks.outcome import Outcome
from worker.blobs import BlobDoor, Blobs
from worker.journal import Entry, Journal, Kept
from worker.reporter import Reporter
from worker.unsettled import Unsettled


class _Door:
    async def get_blob(self, sha256: str) -> bytes | None: ...
    async def put_blob(self, sha256: str, data: bytes) -> None: ...


async def test_results_that_no_outcome_names_are_dropped_at_the_start(tmp_path: Path) -> None:
    """Their process died after it wrote the file and before it journaled the outcome, or in the middle of the file."""
    blobs = Blobs(tmp_path, cast("BlobDoor", _Door()))
    named, stray = await blobs.keep("told again"), await blobs.keep("never told")
    (tmp_path / "half.part").write_text("half of")
    event = pack([Finished("i", 1, 10.0, 9.0, Outcome("succeeded", result_blob=named))])
    nothing: Any = None
    unsettled = Unsettled(cast("Journal", nothing), cast("Reporter", nothing), blobs)
    unsettled._report = lambda *_: None  # type: ignore[method-assign]
    unsettled.recover([Kept(Entry(1), "i", 1, 9.0, event)])
    assert [path.name for path in tmp_path.iterdir()] == [named]
    assert stray != named

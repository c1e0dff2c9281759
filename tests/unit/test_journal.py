"""The journal keeps what was started and what ended, and never claims more than it knows."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest

from worker.journal import Journal, JournalFailed, JournalInUse, JournalUnusable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a journal that is not there yet."""
    return tmp_path / "a1.db"


async def test_outcome_is_kept_until_forgotten(path: Path) -> None:
    """A finished entry is there after a restart, byte for byte; a forgotten one is not."""
    journal = Journal.open(path, boot_id="b")
    journal.adopt("inc-1", "b")
    kept, committed = journal.started("one", 1, 10.0)
    gone, _ = journal.started("two", 1, 10.0)
    await committed
    await journal.finished(kept, "one", 1, b"[outcome]")[1]
    await journal.finished(gone, "two", 1, b"[]")[1]
    journal.forget(gone)
    await journal.close()
    left = Journal.open(path, boot_id="b").recovered
    assert [(row.invocation, row.fence, row.finished) for row in left.finished] == [("one", 1, b"[outcome]")]
    assert left.interrupted == ()
    assert left.resumes == "inc-1"


def _start_and_die(path: Path) -> None:
    async def work() -> None:
        journal = Journal.open(path, boot_id="b")
        journal.adopt("inc-1", "b")
        journal.started("running", 3, 10.0)
        done, committed = journal.started("done", 1, 10.0)
        await committed
        await journal.finished(done, "done", 1, b"[outcome]")[1]
        await journal.finished(None, "unstarted", 1, b"[expired]")[1]
        journal.started("never committed", 1, 10.0)
        os._exit(9)

    asyncio.run(work())


@pytest.mark.parametrize(("boot_id", "resumes"), [("b", "inc-1"), ("another boot", None)])
async def test_a_killed_process_leaves_what_it_had_committed(path: Path, boot_id: str, resumes: str | None) -> None:
    """After kill -9 started and finished are told apart; after another boot the journal claims no completeness."""
    process = multiprocessing.get_context("spawn").Process(target=_start_and_die, args=(path,))
    process.start()
    await asyncio.to_thread(process.join)
    left = Journal.open(path, boot_id=boot_id).recovered
    assert [(row.invocation, row.fence) for row in left.interrupted] == [("running", 3)]
    assert [row.invocation for row in left.finished] == ["done", "unstarted"]
    assert left.resumes == resumes


async def test_a_clean_end_is_complete_after_any_boot(path: Path) -> None:
    """A node that was closed properly may say so although the machine was started anew."""
    journal = Journal.open(path, boot_id="b")
    journal.adopt("inc-1", "b")
    await journal.close()
    assert Journal.open(path, boot_id="another boot").recovered.resumes == "inc-1"


async def test_a_process_that_never_joined_does_not_take_over(path: Path) -> None:
    """`resumes` names the incarnation that worked here last, not one that only opened the file."""
    journal = Journal.open(path, boot_id="b")
    journal.adopt("inc-1", "b")
    await journal.close()
    await Journal.open(path, boot_id="b").close()
    assert Journal.open(path, boot_id="b").recovered.resumes == "inc-1"


async def test_processes_that_died_while_joining_are_remembered(path: Path) -> None:
    """Each may have joined and none has started anything; once one has adopted the journal they are history."""
    journal = Journal.open(path, boot_id="b")
    journal.adopt("inc-1", "b")
    await journal.close()
    for incarnation in ("inc-2", "inc-3"):
        journal = Journal.open(path, boot_id="b")
        journal.joining(incarnation)
        await journal.close()
    journal = Journal.open(path, boot_id="b")
    assert (journal.recovered.resumes, journal.recovered.unstarted) == ("inc-1", ("inc-2", "inc-3"))
    journal.joining("inc-4")
    journal.adopt("inc-4", "b")
    await journal.close()
    again = Journal.open(path, boot_id="b")
    assert (again.recovered.resumes, again.recovered.unstarted) == ("inc-4", ())
    await again.close()


async def test_interrupted_entries_are_told_once(path: Path) -> None:
    """What a join has told the orchestrator is not told again by the next."""
    journal = Journal.open(path, boot_id="b")
    journal.adopt("inc-1", "b")
    await journal.started("one", 1, 10.0)[1]
    await journal.close()
    again = Journal.open(path, boot_id="b")
    assert len(again.recovered.interrupted) == 1
    again.adopt("inc-2", "b")
    await again.close()
    left = Journal.open(path, boot_id="b").recovered
    assert (left.interrupted, left.resumes) == ((), "inc-2")


async def test_one_turn_is_one_commit(path: Path) -> None:
    """Calls that start in the same turn of the loop share a transaction."""
    journal = Journal.open(path, boot_id="b")
    statements: list[str] = []
    journal._db.set_trace_callback(statements.append)
    turns = [journal.started(f"i{n}", 1, 10.0)[1] for n in range(50)]
    await asyncio.gather(*(asyncio.shield(turn) for turn in turns))
    assert statements.count("COMMIT") == 1
    await journal.close()


async def test_full_disk_is_said_and_noticed_when_over(path: Path) -> None:
    """A refused commit fails the start, is visible as trouble, and a later write clears it."""
    journal = Journal.open(path, boot_id="b")
    journal.adopt("inc-1", "b")
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalFailed, match="full"):
        await journal.finished(None, "big", 1, b"x" * 100_000)[1]
    assert journal.trouble is not None
    journal._db.execute("PRAGMA max_page_count = 100000")
    journal.probe()
    await journal.started("one", 1, 10.0)[1]
    assert journal.trouble is None
    await journal.close()
    left = Journal.open(path, boot_id="b").recovered
    assert [row.invocation for row in left.interrupted] == ["one"]
    assert left.finished == ()


def _full(journal: Journal) -> None:
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")


async def test_an_outcome_that_found_the_disk_full_is_written_when_there_is_room(path: Path) -> None:
    """Until then it is told from memory; afterwards a crash does not turn it into 'may have started'."""
    journal = Journal.open(path, boot_id="b")
    journal.adopt("inc-1", "b")
    entry, committed = journal.started("ran", 1, 10.0)
    await committed
    _full(journal)
    with pytest.raises(JournalFailed):
        await journal.finished(entry, "ran", 1, b"x" * 100_000)[1]
    with pytest.raises(JournalFailed):
        await journal.started("never", 1, 11.0)[1]
    journal._db.execute("PRAGMA max_page_count = 100000")
    journal.probe()
    await journal.close()
    left = Journal.open(path, boot_id="b").recovered
    assert ([row.invocation for row in left.finished], left.interrupted) == (["ran"], ())


async def test_a_journal_that_cannot_be_adopted_yet_starts_nothing_and_is_adopted_later(path: Path) -> None:
    """The disk filled up between opening and joining: the node waits for room instead of dying."""
    journal = Journal.open(path, boot_id="b")
    _full(journal)
    journal._db.execute("CREATE TRIGGER full BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    journal.adopt("inc-1", "b")
    assert journal.trouble is not None
    journal._db.execute("DROP TRIGGER full")
    journal._db.execute("PRAGMA max_page_count = 100000")
    journal.probe()
    await journal.started("one", 1, 10.0)[1]
    assert journal.trouble is None
    await journal.close()
    assert Journal.open(path, boot_id="b").recovered.resumes == "inc-1"


async def test_journal_goes_on_while_it_is_folded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding the WAL back happens beside the loop; what comes meanwhile is committed after."""
    monkeypatch.setattr("worker.journal.CHECKPOINT_BYTES", 10_000)
    journal = Journal.open(path, boot_id="b")
    journal.adopt("inc-1", "b")
    for number in range(40):
        await journal.finished(None, f"i{number}", 1, b"x" * 3_000)[1]
    await journal.close()
    assert len(Journal.open(path, boot_id="b").recovered.finished) == 40


def test_a_second_process_is_refused(path: Path) -> None:
    """Two processes with one node name on one machine would start the same deliveries twice."""
    journal = Journal.open(path, boot_id="b")
    with pytest.raises(JournalInUse, match="another mcpfleet-worker"):
        Journal.open(path, boot_id="b")
    journal._db.close()


def test_a_file_that_is_no_journal_is_refused(path: Path, tmp_path: Path) -> None:
    """Junk, or a directory that is not there, is an error that says where and what to do."""
    path.write_bytes(b"this is not a database, and longer than a header" * 10)
    with pytest.raises(JournalUnusable, match=r"a1\.db"):
        Journal.open(path, boot_id="b")
    with pytest.raises(JournalUnusable, match="MCPFLEET_NODE_STATE_DIR"):
        Journal.open(tmp_path / "absent" / "a1.db", boot_id="b")


async def test_an_older_file_is_closed_properly(path: Path) -> None:
    """The file is an ordinary SQLite database: an operator can look into it when the node is down."""
    journal = Journal.open(path, boot_id="b")
    journal.adopt("inc-1", "b")
    await journal.close()
    with sqlite3.connect(path) as db:
        assert dict(db.execute("SELECT name, value FROM meta"))["incarnation"] == "inc-1"

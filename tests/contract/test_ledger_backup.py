"""Backup and restore of the ledger, on both databases: what is copied, what is refused, what a new life changes."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from orchestrator.backup import FolderTaken, take
from orchestrator.backup import Wanted as Take
from orchestrator.backup_folder import BackupBroken, NotABackup, check, read
from orchestrator.blobs.disk import DiskBlobs
from orchestrator.ledger.copies import Standing
from orchestrator.ledger.errors import EpochLost, NoLedger, SchemaTooNew
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.new_life import JUMP, RESTORED
from orchestrator.ledger.postgres_dump import PostgresToolsMissing, Programs
from orchestrator.ledger.testing import HOLDER, accepted, again, new, release_of, released, success
from orchestrator.ledger.values import NodeRow, Started
from orchestrator.restore import FleetRuns, HalfRestored, Here, LedgerNotEmpty, OtherDatabase, begin_here, put_back
from orchestrator.restore import Wanted as Put
from tasks.errors import SettingsError
from tasks.invocation import State
from tasks.node import Offer
from tasks.testing.clock import FakeClock
from tasks.tool import Declared, OnNodeLoss, ToolPolicy, ToolSpec

NOW = 1_900_000_000.0
SAFE, UNSAFE = "git.git_log", "git.git_commit"


def _offer() -> str:
    tools = (
        ToolSpec(server="git", definition={"name": "git_log"}, policy=ToolPolicy(is_safe=True)),
        ToolSpec(server="git", definition={"name": "git_commit"}),
    )
    return Offer(name="n1", pool="default", slots={}, tools=tools).model_dump_json()


async def _save_node(ledger: Ledger) -> None:
    await ledger.save_node(
        NodeRow("n1", "default", "inc-1", 7, "active", _offer(), "00" * 32, "digest", NOW, 1, "active")
    )


def wanted_of(url: str, folder: Path) -> Take:
    """A backup of that ledger."""
    return Take(url, folder / "blobs", folder / "copy", None, "0", NOW, dict(os.environ))


def put_of(url: str, folder: Path, *, runs: bool = False) -> Put:
    """A restore of that backup."""
    here = Here(url, runs, NOW, "ann", "ab" * 32)
    return Put(folder / "copy", here, folder / "new-blobs", dict(os.environ))


@pytest.fixture
def target(request: pytest.FixtureRequest, ledger_url: str, tmp_path: Path) -> str:
    """Where to restore: empty, and of the same kind."""
    if ledger_url.startswith("sqlite"):
        return f"sqlite:///{tmp_path}/elsewhere/restored.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


async def test_what_was_accepted_comes_back_and_what_may_have_run_is_doubted(
    ledger: Ledger, ledger_url: str, target: str, tmp_path: Path, clock: FakeClock
) -> None:
    """Ended calls are as they were; open attempts and due waiting calls are unreachable at no node; the rest waits."""
    await _save_node(ledger)
    ids = await accepted(ledger, *(new(tool=SAFE) for _ in range(5)), new(tool=UNSAFE))
    done, running, out, tried, waiting, unsafe = ids
    later = (await accepted(ledger, new(tool=SAFE)))[0]
    await released(ledger, [done, running, out, tried, later])
    await ledger.mark_started([Started(running, 1, "n1", NOW - 5)])
    await ledger.settle([success(done), again(tried, not_before=NOW - 1), again(later, not_before=NOW + 60)])
    epoch = await ledger.take_epoch(HOLDER, 10.0)
    assert epoch is not None
    take(wanted_of(ledger_url, tmp_path))
    restored = put_back(put_of(target, tmp_path))
    assert (restored.life.doubtful, restored.life.waiting, restored.life.nodes) == (5, 1, 1)
    found = await Ledger.open(target, clock=clock)
    try:
        assert (await found.get(done)).state is State.SUCCEEDED
        assert {one.id for one in await found.waiting(after=None, limit=10)} == {later}
        open_now = {one.invocation_id: one for one in await found.outstanding()}
        assert set(open_now) == {running, out, tried, waiting, unsafe}
        assert {one.node for one in open_now.values()} == {RESTORED}
        assert {one.state for one in open_now.values()} == {State.UNREACHABLE}
        assert open_now[waiting].declared == Declared(is_safe=True, on_node_loss=OnNodeLoss.RERUN)
        assert open_now[unsafe].declared == Declared()
        assert open_now[running].declared == Declared(), "as it was released: undeclared"
        assert [one.fence for one in (open_now[running], open_now[waiting])] == [1 + JUMP, JUMP]
        (node,) = await found.nodes()
        assert (node.state, node.term, node.token_digest) == ("lost", 7 + JUMP, "digest")
        assert await found.take_epoch("orchestrator-2", 10.0) == epoch + JUMP + 1
        found.fence(epoch)
        with pytest.raises(EpochLost):
            await found.release([release_of(later, fence=1 + JUMP)], epoch)
    finally:
        await found.close()


async def test_a_chain_is_never_begun_again_by_itself(
    ledger: Ledger, ledger_url: str, target: str, tmp_path: Path, clock: FakeClock
) -> None:
    """Its later calls may have run after the backup, and this ledger does not know them."""
    await _save_node(ledger)
    row = new(tool=SAFE)
    following = new(tool=UNSAFE).invocation.call
    chained = replace(row, invocation=replace(row.invocation, call=replace(row.invocation.call, then=(following,))))
    (one,) = await accepted(ledger, chained)
    take(wanted_of(ledger_url, tmp_path))
    put_back(put_of(target, tmp_path))
    found = await Ledger.open(target, clock=clock)
    (attempt,) = await found.outstanding()
    await found.close()
    assert (attempt.invocation_id, attempt.declared) == (one, Declared())


async def test_calls_wait_on_where_nothing_ran_since(
    ledger: Ledger, ledger_url: str, target: str, tmp_path: Path, clock: FakeClock
) -> None:
    """Whoever restores says so; a late outcome of the time before still has a fence that is over."""
    (one,) = await accepted(ledger, new(tool=UNSAFE))
    take(wanted_of(ledger_url, tmp_path))
    restored = put_back(put_of(target, tmp_path, runs=True))
    assert (restored.life.doubtful, restored.life.waiting) == (0, 1)
    found = await Ledger.open(target, clock=clock)
    try:
        (released_once,) = await released(found, [one], fence=JUMP)
        assert released_once.fence == JUMP + 1
        assert [late.took for late in await found.settle([success(one, fence=1)])] == [False]
    finally:
        await found.close()


async def test_a_restore_is_in_the_audit_log(
    ledger: Ledger, ledger_url: str, target: str, tmp_path: Path, clock: FakeClock
) -> None:
    """Who reads the log sees where its time jumps, and the chain holds over it."""
    await accepted(ledger, new())
    take(wanted_of(ledger_url, tmp_path))
    put_back(put_of(target, tmp_path))
    found = await Ledger.open(target, clock=clock)
    (row,) = await found.audit.after(0, 10)
    await found.close()
    assert (row.action, row.actor, row.prev) == ("ledger.restore", "ann", "ab" * 32)
    second = replace(wanted_of(target, tmp_path), folder=tmp_path / "second")
    assert take(second).audit_last == 1


async def test_a_ledger_with_calls_is_not_overwritten(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    """A restore destroys nothing."""
    await accepted(ledger, new())
    take(wanted_of(ledger_url, tmp_path))
    with pytest.raises(LedgerNotEmpty, match="1 in mcpfleet_invocations"):
        put_back(put_of(ledger_url, tmp_path))


async def test_a_running_orchestrator_is_not_restored_under(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    """What it has in memory would be written over the restored rows. Once its lease is over, it may be done."""
    take(wanted_of(ledger_url, tmp_path))
    await ledger.take_epoch(HOLDER, 60.0)
    with pytest.raises(FleetRuns, match="stop every replica"):
        put_back(put_of(ledger_url, tmp_path))
    await ledger.renew_epoch(HOLDER, 1, 0.0)
    assert put_back(put_of(ledger_url, tmp_path)).life.epoch == JUMP


async def test_a_restore_that_was_broken_off_is_done_again(  # noqa: PLR0917 - fixtures
    ledger: Ledger, ledger_url: str, target: str, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the new life began nobody can lead there; and the second try is no overwriting."""
    (one,) = await accepted(ledger, new())
    take(wanted_of(ledger_url, tmp_path))

    def breaks(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("orchestrator.restore.begin_anew", breaks)
        with pytest.raises(KeyboardInterrupt):
            put_back(put_of(target, tmp_path))
    if target.startswith("postgresql"):
        half = await Ledger.open(target, clock=clock)
        with pytest.raises(Exception, match=r"."):
            await half.take_epoch(HOLDER, 1.0)
        await half.close()
        with pytest.raises(HalfRestored, match="the same backup"):
            begin_here(put_of(target, tmp_path).here)
    put_back(put_of(target, tmp_path))
    found = await Ledger.open(target, clock=clock)
    assert [attempt.invocation_id for attempt in await found.outstanding()] == [one]
    await found.close()


async def test_a_ledger_that_a_snapshot_put_back_begins_anew_where_it_is(
    ledger: Ledger, ledger_url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same new life, without a copy of ours; never under an orchestrator that runs."""
    (one,) = await accepted(ledger, new(tool=UNSAFE))
    await released(ledger, [one])
    here = Here(ledger_url, is_waiting_run=False, now=NOW, by="ann", new_chain="ab" * 32)
    with pytest.raises(FleetRuns):
        begin_here(here)
    with monkeypatch.context() as late:  # it begins to lead right after it was looked whether one does
        late.setattr("orchestrator.restore.copies.standing", lambda _: Standing({}, is_led=False, is_half=False))
        with pytest.raises(FleetRuns):
            begin_here(here)
    assert [attempt.node for attempt in await ledger.outstanding()] == ["n1"]
    await ledger.renew_epoch(HOLDER, 1, 0.0)
    life = begin_here(here)
    assert (life.epoch, life.doubtful) == (1 + JUMP, 1)
    (attempt,) = await ledger.outstanding()
    assert (attempt.node, attempt.fence) == (RESTORED, 1 + JUMP)
    (row,) = await ledger.audit.after(0, 10)
    assert (row.action, row.epoch) == ("ledger.restore", 1 + JUMP)


async def test_blobs_come_along(ledger: Ledger, ledger_url: str, target: str, tmp_path: Path) -> None:
    """What rows name is copied, checked by its bytes, and put back; what is missing is said."""
    digest = await DiskBlobs(tmp_path / "blobs").put(b"large" * 100)
    await accepted(ledger, new(blob=digest), new(blob="0" * 64))
    manifest = take(wanted_of(ledger_url, tmp_path))
    assert (manifest.blobs, manifest.blobs_missing) == (1, 1)
    put_back(put_of(target, tmp_path))
    assert await DiskBlobs(tmp_path / "new-blobs").get(digest) == b"large" * 100
    (copied,) = (tmp_path / "copy" / "blobs").glob("??/*")
    copied.write_bytes(b"other")
    assert "1 blobs are not what was copied" in check(tmp_path / "copy", os.environ)[1][0]
    with pytest.raises(BackupBroken):
        put_back(put_of(f"{target}x", tmp_path))


async def test_a_backup_is_of_one_moment_while_calls_come(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    """Rows are as many as the manifest says, whatever was accepted while it was taken."""
    for _ in range(20):
        await accepted(ledger, *(new() for _ in range(50)))
    manifest = take(wanted_of(ledger_url, tmp_path))
    await accepted(ledger, new())
    assert manifest.rows["mcpfleet_invocations"] == 1000
    assert check(tmp_path / "copy", os.environ) == (manifest, [])


async def test_a_backup_that_was_changed_is_refused(
    ledger: Ledger, ledger_url: str, target: str, tmp_path: Path
) -> None:
    """A changed file, and a manifest that counts other rows than there are."""
    await accepted(ledger, new())
    manifest = take(wanted_of(ledger_url, tmp_path))
    kept = tmp_path / "copy" / manifest.ledger_name
    path = tmp_path / "copy" / "manifest.json"
    rows = manifest.rows | {"mcpfleet_invocations": 2}
    path.write_text(manifest.model_copy(update={"rows": rows}).model_dump_json())
    assert check(tmp_path / "copy", os.environ)[1] == ["mcpfleet_invocations has 1 rows, and had 2"]
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    with pytest.raises(BackupBroken, match="was changed"):
        put_back(put_of(target, tmp_path))
    path.unlink()
    with pytest.raises(NotABackup):
        read(tmp_path / "copy")


async def test_a_backup_of_a_newer_version_is_refused(
    ledger: Ledger, ledger_url: str, target: str, tmp_path: Path
) -> None:
    """Its tables are not known here, so nothing is touched."""
    manifest = take(wanted_of(ledger_url, tmp_path))
    newer = manifest.model_copy(update={"ledger_schema": "9999"})
    (tmp_path / "copy" / "manifest.json").write_text(newer.model_dump_json())
    with pytest.raises(SchemaTooNew, match="9999"):
        put_back(put_of(target, tmp_path))


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
async def test_a_backup_goes_back_into_its_own_kind_and_into_a_folder_of_its_own(
    ledger: Ledger, ledger_url: str, tmp_path: Path
) -> None:
    """Neither kind reads the other's copy; and no backup is written over another."""
    take(wanted_of(ledger_url, tmp_path))
    with pytest.raises(OtherDatabase, match="sqlite"):
        put_back(put_of("postgresql://fleet:pw@127.0.0.1:1/fleet", tmp_path))
    with pytest.raises(FolderTaken):
        take(wanted_of(ledger_url, tmp_path))


async def test_an_altered_audit_log_is_not_backed_up_in_silence(
    ledger: Ledger, ledger_url: str, target: str, tmp_path: Path
) -> None:
    """The last good backup must not be rotated away by bad ones."""
    take(wanted_of(ledger_url, tmp_path))
    put_back(put_of(target, tmp_path))
    engine = create_engine(target)
    with engine.begin() as connection:
        trigger = "mcpfleet_audit_update" if target.startswith("sqlite") else "mcpfleet_audit_keep ON mcpfleet_audit"
        connection.execute(text(f"DROP TRIGGER {trigger}"))
        connection.execute(text("UPDATE mcpfleet_audit SET actor = 'bob'"))
    engine.dispose()
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(BackupBroken, match="altered at row 1"):
        take(wanted_of(target, tmp_path))
    assert not (tmp_path / "copy").exists()


def test_no_password_stands_in_an_argument(tmp_path: Path) -> None:
    """Every user of a machine can read the arguments of its processes; libpq reads its environment."""
    word = "s" + "3" * 8
    for name in ("pg_dump", "pg_restore"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\necho "$@" >> args; env > env\n')
        program.chmod(0o700)
    url = f"postgresql+psycopg://ann:{word}@db.example:6543/fleet?sslmode=verify-full&keepalives_idle=5"
    programs = Programs.for_url(url, {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MCPFLEET_TOKEN": "kept away"})
    assert word not in f"{programs.dump}{programs.restore}"
    assert dict(programs.environ) | {"PATH": ""} == {
        "PATH": "", "PGHOST": "db.example", "PGPORT": "6543", "PGUSER": "ann", "PGPASSWORD": word,
        "PGDATABASE": "fleet", "PGSSLMODE": "verify-full",
    }  # fmt: skip
    with pytest.raises(SettingsError, match="gssencmode"):
        Programs.for_url(f"{url}&gssencmode=require", {})


async def test_where_there_is_no_ledger_none_is_made(tmp_path: Path, empty_url: str) -> None:
    """A backup of a wrong address says so, and leaves no empty database behind."""
    with pytest.raises(NoLedger, match="MCPFLEET_DATABASE_URL"):
        take(wanted_of(empty_url, tmp_path))
    assert not list(tmp_path.glob("*.db"))
    assert not (tmp_path / "copy").exists()


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setattr("orchestrator.ledger.postgres_dump.Path.glob", lambda *_: iter(()))
    with pytest.raises(PostgresToolsMissing, match="postgresql-client"):
        Programs.for_url("postgresql://db/fleet", {"PATH": str(tmp_path)})

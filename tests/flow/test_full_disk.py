"""A disk that is full under a running node, and under the ledger."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from orchestrator.blobs.disk import BlobsDown, DiskBlobs
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import accepted, new
from orchestrator.ledger.values import Filter
from tasks.clock import SystemClock
from tasks.errors import LedgerDown
from tasks.invocation import State
from tasks.ledger_events import Started
from tests.chaos.disks import Disks
from worker.process import Exit
from worker.testing.fake_orchestrator import FakeOrchestrator
from worker.testing.node_process import node_process

LOG_HAS_ROOM_FOR = 1000
"""Commits, at most: what it wrote before is written over."""
pytestmark = pytest.mark.live("small-disks")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one of its own."""
    with Disks.mounted([tmp_path / "disk"]) as disks:
        yield disks.folders[0]


@pytest.fixture
async def fake(redis_url: str) -> AsyncIterator[FakeOrchestrator]:
    """An orchestrator that grants and settles until told otherwise."""
    async with FakeOrchestrator(redis_url).serving() as fake:
        yield fake


async def test_a_node_without_room_starts_nothing_loses_nothing_and_goes_on_by_itself(
    fake: FakeOrchestrator, disk: Path
) -> None:
    """What ran before ends and is told; with room again calls start, and the journal has what it missed."""
    fake.is_settling = False
    async with node_process(fake, disk, os.environ) as node:
        running = await fake.call("probe.sleep", '{"seconds": 1.0}')
        await fake.until(lambda: any(isinstance(event, Started) for event in fake.events))
        Disks.fill(disk)
        refused = await fake.ended(await fake.call("probe.echo"))
        assert refused.outcome.error is not None
        assert (refused.outcome.error.code, refused.started_at) == ("journal_failed", None)
        assert (await fake.ended(running)).outcome.ending == "succeeded"
        await fake.until(lambda: _has_no_slots(fake))
        assert (await node.health())["journal"] != "ok"
        Disks.relieve(disk)
        await node.health_until(lambda view: view["journal"] == "ok")
        assert (await fake.ended(await fake.call("probe.echo"))).outcome.ending == "succeeded"
        await node.kill()
    async with node_process(fake, disk, os.environ):
        assert running in [ref.invocation for ref in fake.joins[-1].finished]
        assert fake.joins[-1].interrupted == ()


def _has_no_slots(fake: FakeOrchestrator) -> bool:
    told = [renewal.offer for renewal in fake.renewals if renewal.offer is not None]
    return bool(told) and not any(told[-1].slots.values())


async def test_a_node_that_starts_on_a_full_disk_does_not_join(
    fake: FakeOrchestrator, disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It says what is wrong and leaves its journal as it was: joining first would cost what that holds."""
    async with node_process(fake, disk, os.environ) as node:
        running = await fake.call("probe.sleep", '{"seconds": 600}')
        await fake.until(lambda: any(isinstance(event, Started) for event in fake.events))
        await node.kill()
    Disks.fill(disk)
    async with node_process(fake, disk, os.environ, is_joining=False) as node:
        assert await node.exit_code() == Exit.BAD_START
    assert "full" in capfd.readouterr().err
    assert len(fake.joins) == 1
    Disks.relieve(disk)
    async with node_process(fake, disk, os.environ):
        assert [ref.invocation for ref in fake.joins[-1].interrupted] == [running]


async def test_a_ledger_without_room_accepts_nothing_and_goes_on_by_itself(disk: Path) -> None:
    """Callers hear `ledger_down` and why; what was accepted is there; with room the next call is accepted."""
    ledger = await Ledger.open(f"sqlite:///{disk / 'ledger.db'}", clock=SystemClock())
    try:
        (before,) = await accepted(ledger, new())
        Disks.fill(disk)
        told = await _until_refused(ledger)
        listed, _ = await ledger.listing(Filter(), limit=LOG_HAS_ROOM_FOR)
        assert {call.id for call in listed} == {before, *told}
        Disks.relieve(disk)
        (after,) = await accepted(ledger, new())
        assert (await ledger.get(after)).state is State.WAITING
    finally:
        await ledger.close()


async def test_a_blob_store_without_room_says_so_and_goes_on_by_itself(disk: Path) -> None:
    """Large arguments are refused with a reason, nothing of them is left, and with room they are taken."""
    blobs = DiskBlobs(disk / "blobs")
    data = bytes(100_000)
    Disks.fill(disk)
    with pytest.raises(BlobsDown, match="No space left"):
        await blobs.put(data)
    with pytest.raises(BlobsDown, match="No space left"):
        await blobs.store(sha256(data).hexdigest(), _chunks(data), limit_bytes=len(data))
    assert not any(path.is_file() for path in (disk / "blobs").rglob("*"))
    Disks.relieve(disk)
    assert await blobs.get(await blobs.put(data)) == data


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _until_refused(ledger: Ledger) -> list[str]:
    """What was accepted until the disk refused."""
    told: list[str] = []
    while len(told) < LOG_HAS_ROOM_FOR:
        try:
            told += await accepted(ledger, new())
        except LedgerDown as refused:
            return told if "full" in refused.message else []
    raise AssertionError("never refused")

"""Workspaces take no more room than they may, and what nobody needs any more goes; what is in use never does."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.workspace_rig import LIMIT_BYTES, Rig, git
from worker.workspaces.errors import DiskFull, RepositoryTooLarge, WorkspaceTooLarge
from worker.workspaces.quota import WorkspaceLimits

MIB = 2**20
READY_S = 30.0


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A remote with three files, and a node without any."""
    made = Rig(tmp_path)
    made.begin()
    return made


def _fill(path: Path, size_bytes: int) -> None:
    path.write_bytes(b"x" * size_bytes)


async def test_a_run_over_its_quota_is_told_while_it_works(rig: Rig) -> None:
    """Whoever waits on `watch` learns of it; its results are refused with the size and the limit. HOME counts."""
    rig.limits = WorkspaceLimits(workspace_bytes=3 * MIB, look_every_s=0.02)
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        watching = asyncio.create_task(workspace.watch())
        _fill(workspace.home / "cache", 4 * MIB)
        async with asyncio.timeout(20):
            with pytest.raises(WorkspaceTooLarge, match=f"the limit is {3 * MIB}"):
                await watching
        with pytest.raises(WorkspaceTooLarge):
            await workspace.patch(LIMIT_BYTES)
        with pytest.raises(WorkspaceTooLarge):
            await workspace.push()
        (workspace.home / "cache").unlink()
        await workspace.check_size()


async def test_a_repository_over_the_limit_is_given_up(rig: Rig) -> None:
    """A mirror does not eat the node's disk."""
    rig.limits = WorkspaceLimits(mirror_bytes=10_000)
    with pytest.raises(RepositoryTooLarge, match="raise the limit"):
        async with rig.workspaces().open(rig.project, None, "run1"):
            pass


async def test_the_disk_keeps_its_reserve(rig: Rig) -> None:
    """No run begins on a disk that is nearly full: the node's journal needs it more."""
    rig.limits = WorkspaceLimits(reserve_bytes=2**60)
    with pytest.raises(DiskFull, match="free some"):
        async with rig.workspaces().open(rig.project, None, "run1"):
            pass


async def test_idle_mirrors_go_before_a_run_is_refused(rig: Rig) -> None:
    """The total is reached: the mirror that nobody uses is removed, the one in use stays, the next is refused."""
    (rig.folder / "other").mkdir()
    idle = Rig(rig.folder / "other")
    idle.begin()
    idle.commit({"big": _noise(2 * MIB)})
    rig.limits = WorkspaceLimits(total_bytes=4 * MIB)
    workspaces = rig.workspaces()
    async with workspaces.open(rig.project, None, "run1") as first:
        _fill(first.home / "cache", 3 * MIB // 2)
        async with workspaces.open(idle.project_named("idle"), None, "run2"):
            assert workspaces.warm() == {"shop", "idle"}
        _fill(first.home / "more", MIB)
        async with workspaces.open(rig.project, None, "run3"):
            assert workspaces.warm() == {"shop"}
        _fill(first.home / "most", 2 * MIB)
        with pytest.raises(DiskFull, match=f"of at most {4 * MIB}"):
            async with workspaces.open(rig.project, None, "run4"):
                pass
        assert git(first.path, "log", "--format=%s") == "work"


def _noise(size_bytes: int) -> bytes:
    """What cannot be compressed."""
    return random.Random(1).randbytes(size_bytes)


async def test_a_mirror_that_nobody_used_for_long_is_removed(rig: Rig) -> None:
    """Not before its time, and not while a run borrows from it, however long that takes."""
    workspaces = rig.workspaces()
    async with workspaces.open(rig.project, None, "run1") as workspace:
        rig.clock.advance(rig.limits.idle_s + 1)
        await rig.workspaces().age_out()
        assert git(workspace.path, "show", "HEAD:readme.txt") == "hello"
    rig.clock.advance(rig.limits.idle_s - 1)
    await workspaces.age_out()
    assert workspaces.warm() == {"shop"}
    rig.clock.advance(2)
    await workspaces.age_out()
    assert workspaces.warm() == frozenset()
    async with workspaces.open(rig.project, None, "run1"):
        assert workspaces.warm() == {"shop"}


HOLDS = """
import asyncio, sys
from pathlib import Path
from tests.contract.workspace_rig import Rig

async def main():
    rig = Rig(Path(sys.argv[1]))
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        (workspace.path / "mine").write_text("x")
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_what_a_killed_node_left_is_swept_at_the_next_start(rig: Rig) -> None:
    """While it lives nobody takes its files; after `kill -9` the kernel has freed its lock, and they go."""
    root = Path(__file__).parents[2]
    node = subprocess.Popen([sys.executable, "-c", HOLDS, str(rig.folder)], cwd=root, stdout=subprocess.PIPE)
    try:
        assert node.stdout is not None
        assert node.stdout.readline() == b"ready\n"
        asyncio.run(rig.workspaces().start())
        assert (rig.files_of("run1") / "mine").exists()
    finally:
        node.send_signal(signal.SIGKILL)
        node.communicate(timeout=READY_S)
    assert (rig.files_of("run1") / "mine").exists()
    asyncio.run(rig.workspaces().start())
    assert list((rig.node / "runs").iterdir()) == []


async def test_half_of_what_a_kill_interrupted_is_swept_too(rig: Rig) -> None:
    """A folder without its lock, a lock without its folder, a mirror on its way out."""
    workspaces = rig.workspaces()
    rig.files_of("run1").mkdir(parents=True)
    (rig.node / "runs/run2.lock").touch()
    (rig.node / "mirrors/shop.0123.abcd.gone").mkdir()
    await workspaces.start()
    assert list((rig.node / "runs").iterdir()) == []
    assert list((rig.node / "mirrors").iterdir()) == []


async def test_a_run_of_a_name_that_crashed_begins_anew(rig: Rig) -> None:
    """What the earlier one left under that name is not taken for its own."""
    workspaces = rig.workspaces()
    rig.files_of("run1").mkdir(parents=True)
    (rig.files_of("run1") / "old").touch()
    async with workspaces.open(rig.project, None, "run1") as workspace:
        assert not (workspace.path / "old").exists()

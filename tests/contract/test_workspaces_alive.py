"""The patch of files that an agent is still at work in: the same as afterwards, and nothing of the host's in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.contract.workspace_rig import LIMIT_BYTES, Rig, git
from worker.workspaces.alive import Copies
from worker.workspaces.errors import PatchTooLarge
from worker.workspaces.git import Git, Repository


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A remote with a few files."""
    made = Rig(tmp_path)
    made.begin()
    return made


async def test_it_is_the_patch_that_will_be(rig: Rig) -> None:
    """New, changed, deleted, renamed, binary, executable, a link, a file that became a folder, an odd name."""
    async with rig.workspaces().open(rig.project, None, "run-1") as workspace:
        work = workspace.path
        assert (await workspace.patch_alive(LIMIT_BYTES)).data == b""
        (work / "readme.txt").unlink()
        (work / "readme.txt").mkdir()
        (work / "readme.txt/inner.txt").write_text("inner\n")
        (work / "src/shop.py").rename(work / "src/store.py")
        (work / "raw.bin").write_bytes(bytes(range(256)))
        (work / "logo.bin").write_bytes(b"changed\0")
        (work / "run.sh").write_text("#!/bin/sh\n")
        (work / "run.sh").chmod(0o755)
        (work / "way").symlink_to("src")
        (work / os.fsdecode(b"n\xffw\nline")).write_text("odd\n")
        (work / "ignored.txt").write_text("ignored\n")
        (work / ".gitignore").write_text("ignored.txt\n")
        os.mkfifo(work / "pipe")
        git(work, "add", "run.sh")
        git(work, "commit", "-q", "-m", "some of it")
        alive = await workspace.patch_alive(LIMIT_BYTES)
        (work / "pipe").unlink()
        assert alive == await workspace.patch(LIMIT_BYTES)
        assert b"inner" in alive.data


async def test_a_link_that_appears_between_look_and_read_leads_nowhere(rig: Rig, tmp_path: Path) -> None:
    """Of a folder, or of the file itself: the host's own files never come into a patch."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("not-to-be-seen\n")
    async with rig.workspaces().open(rig.project, None, "run-1") as workspace:
        work, host = workspace.path, workspace.path.with_name("host.git")
        (work / "deep").mkdir()
        (work / "deep/key").write_text("mine\n")
        names = [b"deep/key", b"linked", b"readme.txt"]  # as git listed them
        (work / "deep/key").unlink()
        (work / "deep").rmdir()
        (work / "deep").symlink_to(secret)
        (work / "linked").symlink_to(secret / "key")
        runner, at = Git(tmp_path), Repository(host, work, host / "index")
        await Copies(work, host / "alive", runner, LIMIT_BYTES).add(at, names)
        assert sorted(git(host, "ls-files", "-s").split()[3::4]) == ["linked", "logo.bin", "readme.txt", "src/shop.py"]
        objects = git(host, "cat-file", "--batch", "--batch-all-objects", "--unordered")
        assert "not-to-be-seen" not in objects
        assert not (host / "alive").exists()


async def test_more_than_may_be_read_is_refused(rig: Rig) -> None:
    """A capsule is not saved then; nothing is read to its end for it."""
    async with rig.workspaces().open(rig.project, None, "run-1") as workspace:
        with (workspace.path / "large.bin").open("wb") as file:
            file.truncate(100_000)
        with pytest.raises(PatchTooLarge):
            await workspace.patch_alive(1000)


async def test_a_look_that_was_cut_off_spoils_no_other(rig: Rig) -> None:
    """Git was ended while it wrote: what it held must not cost the run its patch."""
    async with rig.workspaces().open(rig.project, None, "run-1") as workspace:
        (workspace.path / "made.txt").write_text("made\n")
        (workspace.path.with_name("host.git") / "index.now.lock").touch()
        assert b"+made" in (await workspace.patch(LIMIT_BYTES)).data

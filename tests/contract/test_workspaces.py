"""A run gets files of its own, and what it made of them comes back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.contract.workspace_rig import LIMIT_BYTES, Rig, git
from worker.workspaces.errors import (
    ArtifactTooLarge,
    InvalidRef,
    OutsideWorkspace,
    PatchTooLarge,
    PushRefused,
    UnknownRef,
    WorkspaceInUse,
)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A remote with three files, and a node without any."""
    made = Rig(tmp_path)
    made.begin()
    return made


async def test_a_run_gets_the_default_branch_on_a_branch_of_its_own(rig: Rig) -> None:
    """The agent finds the project's files, a branch to commit on, and an empty HOME; then all is gone."""
    head = git(rig.seed, "rev-parse", "HEAD")
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        assert workspace.base == head
        assert git(workspace.path, "branch", "--show-current") == workspace.branch == "agent/run1"
        assert git(workspace.path, "status", "--porcelain") == ""
        assert (workspace.path / "src/shop.py").read_text() == "price = 1\n"
        assert list(workspace.home.iterdir()) == []
        git(workspace.path, "commit", "--allow-empty", "-q", "-m", "the agent may")
    assert list((rig.node / "runs").iterdir()) == []


async def test_a_patch_has_everything_that_changed(rig: Rig) -> None:
    """Edited, new, binary, deleted, made executable, linked, renamed, committed or not: applied, it is the same."""
    async with rig.workspaces().open(rig.project, "main", "run1") as workspace:
        work = workspace.path
        (work / "src/shop.py").write_text("price = 2\n")
        git(work, "commit", "-qam", "committed by the agent")
        (work / "new/with space\nand line").parent.mkdir()
        (work / "new/with space\nand line").write_bytes(b"\x00\xff binary \x80")
        (work / "logo.bin").write_bytes(bytes(reversed(range(256))))
        (work / "tool.sh").write_text("#!/bin/sh\n")
        (work / "tool.sh").chmod(0o755)
        (work / "link").symlink_to("src/shop.py")
        (work / "readme.txt").unlink()
        (work / os.fsdecode(b"latin-\xe9.txt")).write_bytes(b"caf\xe9\n")
        patch = await workspace.patch(LIMIT_BYTES)
        assert patch.base == workspace.base
        there = rig.applied(patch.data, patch.base)
        for name in ("src/shop.py", "new/with space\nand line", "logo.bin", os.fsdecode(b"latin-\xe9.txt")):
            assert (there / name).read_bytes() == (work / name).read_bytes()
        assert not (there / "readme.txt").exists()
        assert (there / "link").readlink() == Path("src/shop.py")
        assert (there / "tool.sh").stat().st_mode & 0o100
        assert patch.files == 7
        assert (patch.links_out, patch.nested) == ((), ())


async def test_a_run_that_changed_nothing_has_an_empty_patch(rig: Rig) -> None:
    """Ignored files and touched ones are no change; nothing is pushed then."""
    rig.commit({".gitignore": b"*.log\n"})
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        (workspace.path / "noise.log").write_text("x")
        os.utime(workspace.path / "readme.txt", (1, 1))
        assert (await workspace.patch(LIMIT_BYTES)).data == b""
        assert await workspace.push() is None


async def test_a_patch_can_be_asked_for_at_every_turn(rig: Rig) -> None:
    """Each is against the base, also where the agent took back what it did."""
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        (workspace.path / "a").write_text("1\n")
        first, again = await asyncio.gather(workspace.patch(LIMIT_BYTES), workspace.patch(LIMIT_BYTES))
        assert first == again
        (workspace.path / "a").unlink()
        assert (await workspace.patch(LIMIT_BYTES)).data == b""


async def test_a_patch_over_the_limit_is_refused(rig: Rig) -> None:
    """It says what else can be done; the workspace can still be pushed."""
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        (workspace.path / "big").write_bytes(os.urandom(200_000))
        with pytest.raises(PatchTooLarge, match=r"1000 bytes.*pushed as a branch"):
            await workspace.patch(1000)
        assert await workspace.push() is not None


async def test_a_branch_comes_back_as_one_commit_on_the_base(rig: Rig) -> None:
    """`agent/<run>` on the remote: the files as they are, on top of what the run began from."""
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        (workspace.path / "src/shop.py").write_text("price = 3\n")
        pushed = await workspace.push(message="Raise the price\n")
    assert pushed is not None
    assert pushed.branch == "agent/run1"
    assert git(rig.remote, "rev-parse", "agent/run1") == pushed.commit
    assert git(rig.remote, "rev-parse", "agent/run1^") == git(rig.seed, "rev-parse", "main")
    assert git(rig.remote, "show", "agent/run1:src/shop.py") == "price = 3"
    assert git(rig.remote, "log", "-1", "--format=%s", "agent/run1") == "Raise the price"


async def test_a_branch_that_moved_on_is_never_overwritten(rig: Rig) -> None:
    """Somebody pushed to it meanwhile: their work stays, and the run is told."""
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        theirs = rig.commit({"theirs.txt": b"x"}, branch="feature")
        (workspace.path / "a").write_text("1\n")
        with pytest.raises(PushRefused, match=r"'feature' \(\[rejected\] \(fetch first\)\): choose another name"):
            await workspace.push("feature")
    assert git(rig.remote, "rev-parse", "feature") == theirs


async def test_a_remote_that_refuses_says_why(rig: Rig) -> None:
    """A hook of the remote's owner says no: that is permanent, and in the message."""
    hook = rig.remote / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho only reviewed work; exit 1\n")
    hook.chmod(0o755)
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        (workspace.path / "a").write_text("1\n")
        with pytest.raises(PushRefused, match="only reviewed work"):
            await workspace.push()


@pytest.mark.parametrize("ref", ["main", "feature/x", "v1", "v2", None])
async def test_every_kind_of_ref_is_found(rig: Rig, ref: str | None) -> None:
    """Branches, light and annotated tags, the default branch; a branch named like a path."""
    git(rig.seed, "tag", "v1")
    git(rig.seed, "tag", "-a", "-m", "two", "v2")
    git(rig.seed, "push", "-q", "origin", "v1", "v2", "HEAD:refs/heads/feature/x")
    async with rig.workspaces().open(rig.project, ref, "run1") as workspace:
        assert workspace.base == git(rig.seed, "rev-parse", "HEAD")


async def test_a_commit_that_is_here_needs_no_remote(rig: Rig) -> None:
    """It is what it is: a run of it begins while the remote is away."""
    workspaces, commit = rig.workspaces(), git(rig.seed, "rev-parse", "HEAD")
    async with workspaces.open(rig.project, None, "run1"):
        pass
    rig.remote.rename(rig.folder / "away.git")
    async with workspaces.open(rig.project, commit, "run2") as workspace:
        assert workspace.base == commit


async def test_what_was_pushed_since_is_seen(rig: Rig) -> None:
    """Also a branch that was forced, one that went away, and another default branch."""
    workspaces = rig.workspaces()
    git(rig.seed, "push", "-q", "origin", "main:old")
    async with workspaces.open(rig.project, "old", "run1"):
        pass
    rig.clock.advance(60)
    git(rig.seed, "push", "-q", "origin", ":old")
    git(rig.seed, "checkout", "-q", "--orphan", "trunk")
    forced = rig.commit({"only.txt": b"x\n"}, branch="trunk")
    git(rig.seed, "push", "-q", "--force", "origin", "HEAD:main")
    git(rig.remote, "symbolic-ref", "HEAD", "refs/heads/trunk")
    for ref in ("main", None):
        async with workspaces.open(rig.project, ref, "run2") as workspace:
            assert workspace.base == forced
    with pytest.raises(UnknownRef, match="no 'old': name a branch"):
        async with workspaces.open(rig.project, "old", "run3"):
            pass


async def test_a_default_branch_by_any_name_is_found(rig: Rig) -> None:
    """No `main` at all, and a name that begins as our own branches do."""
    git(rig.seed, "push", "-q", "origin", "main:agent")
    git(rig.remote, "symbolic-ref", "HEAD", "refs/heads/agent")
    git(rig.seed, "push", "-q", "origin", ":main")
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        assert git(workspace.path, "branch", "--show-current") == "agent/run1"
        assert git(workspace.path, "rev-parse", "origin/agent") == workspace.base


async def test_a_remote_whose_head_leads_nowhere_still_has_its_branches(rig: Rig) -> None:
    """Its default branch was never pushed; a named one is found, and a missing name is told."""
    git(rig.remote, "symbolic-ref", "HEAD", "refs/heads/nobody")
    async with rig.workspaces().open(rig.project, "main", "run1"):
        pass
    with pytest.raises(UnknownRef, match="name a branch"):
        async with rig.workspaces().open(rig.project, None, "run2"):
            pass


@pytest.mark.parametrize("ref", ["--upload-pack=x", "a..b", "a b", "a\0b", "", "x" * 201, "HEAD@{1}", "a:b", "^a"])
async def test_a_ref_that_could_be_something_else_never_reaches_git(rig: Rig, ref: str) -> None:
    """Options, ranges and expressions are refused before anything is fetched."""
    with pytest.raises(InvalidRef):
        async with rig.workspaces().open(rig.project, ref, "run1"):
            pass
    assert rig.workspaces().warm() == frozenset()


@pytest.mark.parametrize("run", ["../other", "a/b", "", ".", "..", "a..b", "a.lock", "-x", "a\n", "x" * 101])
async def test_a_run_whose_name_is_no_folder_is_refused(rig: Rig, run: str) -> None:
    """It names a folder, a lock file and a branch."""
    with pytest.raises(InvalidRef):
        async with rig.workspaces().open(rig.project, None, run):
            pass


async def test_two_runs_of_a_name_do_not_share_files(rig: Rig) -> None:
    """The second is refused, and the first keeps what it has."""
    workspaces = rig.workspaces()
    async with workspaces.open(rig.project, None, "run1") as first:
        with pytest.raises(WorkspaceInUse):
            async with workspaces.open(rig.project, None, "run1"):
                pass
        assert (first.path / "readme.txt").exists()


async def test_artifacts_are_read_within_the_workspace_only(rig: Rig) -> None:
    """A file is read; links, parents, pipes and folders are not, and nothing waits for a pipe's writer."""
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        (workspace.path / "out").mkdir()
        (workspace.path / "out/report.txt").write_text("fine")
        (workspace.path / "etc").symlink_to("/etc")
        (workspace.path / "passwd").symlink_to("/etc/passwd")
        os.mkfifo(workspace.path / "pipe")
        assert await workspace.artifact("out/report.txt", 4) == b"fine"
        with pytest.raises(ArtifactTooLarge, match="4 bytes, the limit is 3"):
            await workspace.artifact("out/report.txt", 3)
        for path in ("etc/passwd", "passwd", "pipe", "out", "../home", "/etc/passwd", "a\0b", "", "none", "out/"):
            with pytest.raises(OutsideWorkspace):
                await workspace.artifact(path, 1000)

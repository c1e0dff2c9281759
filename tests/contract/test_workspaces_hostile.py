"""What an agent, or whoever it listened to, writes into its files is never run or followed by the node.

Each test plants something that leaves a mark when it is run, asks for all results, and looks for the mark.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.contract.workspace_rig import LIMIT_BYTES, Rig, git
from worker.workspaces.workspaces import Workspace


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A remote with three files, and a node without any."""
    made = Rig(tmp_path)
    made.begin()
    return made


def _trap(rig: Rig) -> str:
    """A command that leaves a mark."""
    program = rig.folder / "trap"
    program.write_text(f"#!/bin/sh\ntouch {rig.folder}/sprung\nexec cat\n")
    program.chmod(0o755)
    return str(program)


def _arm(repository: Path, trap: str) -> None:
    """Every setting of a repository by which git starts a program, and every hook."""
    settings = {
        "core.fsmonitor": trap,
        "core.sshCommand": trap,
        "core.pager": trap,
        "core.editor": trap,
        "core.askPass": trap,
        "core.gitProxy": trap,
        "core.alternateRefsCommand": trap,
        "core.hooksPath": str(repository / "hooks"),
        "core.attributesFile": str(repository / "attributes"),
        "credential.helper": trap,
        "diff.external": trap,
        "diff.evil.command": trap,
        "diff.evil.textconv": trap,
        "filter.evil.clean": trap,
        "filter.evil.smudge": trap,
        "filter.evil.process": trap,
        "filter.evil.required": "true",
        "merge.evil.driver": trap,
        "uploadpack.packObjectsHook": trap,
        "gpg.program": trap,
        "commit.gpgSign": "true",
        "push.gpgSign": "true",
        "remote.origin.uploadpack": trap,
        "remote.origin.receivepack": trap,
        "remote.origin.vcs": trap,
        "url.ext::sh.insteadOf": "/",
        "submodule.lib.update": f"!{trap}",
        "alias.diff-files": f"!{trap}",
        "alias.update-index": f"!{trap}",
    }
    for name, value in settings.items():
        git(repository, "config", "--file", str(repository / "config"), name, value)
    (repository / "hooks").mkdir(exist_ok=True)
    for hook in ("pre-commit", "post-checkout", "post-index-change", "pre-push", "reference-transaction"):
        (repository / "hooks" / hook).write_text(f"#!/bin/sh\n{trap} </dev/null\n")
        (repository / "hooks" / hook).chmod(0o755)


def _step_in(work: Path) -> None:
    """What the node never does: ask git in the agent's own repository."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(work)}
    subprocess.run(["git", "status"], cwd=work, env=environ, capture_output=True, check=False)


async def _all_results(workspace: Workspace) -> bytes:
    patch = await workspace.patch(LIMIT_BYTES)
    await workspace.push()
    return patch.data


async def test_nothing_in_the_agents_own_repository_is_run(rig: Rig) -> None:
    """Monitors, filters, differs, hooks, commands, aliases: set by the agent, and named by its attributes."""
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        _arm(workspace.path / ".git", _trap(rig))
        (workspace.path / ".git/info/attributes").write_text("* filter=evil diff=evil merge=evil\n")
        (workspace.path / ".gitattributes").write_text(
            "* filter=evil diff=evil merge=evil ident working-tree-encoding=UTF-16\n"
        )
        (workspace.path / "readme.txt").write_text("changed $Id$\n")
        assert b"+changed $Id$\n" in await _all_results(workspace)
        assert not (rig.folder / "sprung").exists()
        _step_in(workspace.path)
        assert (rig.folder / "sprung").exists(), "the trap is none"


async def test_repositories_within_folders_are_left_alone(rig: Rig) -> None:
    """With commits and without, over a tracked folder, a tracked file and a submodule: said, and never entered."""
    rig.commit_submodule({"readme.txt": b"hello again\n"}, "lib")
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        trap, work = _trap(rig), workspace.path
        (work / "logo.bin").unlink()
        for name in ("lib", "src", "logo.bin", "new", "bare"):
            (work / name).mkdir(exist_ok=True)
            git(work / name, "init", "-q")
            (work / name / "inner.txt").write_text("inner\n")
            if name != "bare":
                git(work / name, "add", ".")
                git(work / name, "commit", "-q", "-m", "inner")
            _arm(work / name / ".git", trap)
        (work / "src/shop.py").write_text("price = 9\n")
        data = await _all_results(workspace)
        patch = await workspace.patch(LIMIT_BYTES)
        assert workspace.submodules == ("lib",)
        assert not (rig.folder / "sprung").exists()
        _step_in(work / "new")
        assert (rig.folder / "sprung").exists(), "the trap is none"
    assert b"+price = 9\n" in data
    assert b"b/src/inner.txt" in data
    assert b"Subproject" not in data
    assert {"bare/", "new/", "logo.bin/"} <= set(patch.nested)


async def test_a_repository_that_comes_with_traps_is_cloned_all_the_same(rig: Rig) -> None:
    """Attributes that name a filter, a submodule by a hostile address, a link named like a hook: only files."""
    hostile = b'[submodule "lib"]\n\tpath = lib\n\turl = ext::sh -c touch% sprung\n'
    attributes = b"* filter=lfs diff=lfs merge=lfs\n*.txt working-tree-encoding=UTF-16\n"
    (rig.seed / "hooks").symlink_to(".git/hooks")
    rig.commit_submodule({".gitmodules": hostile, ".gitattributes": attributes}, "lib")
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        assert workspace.submodules == ("lib",)
        assert (workspace.path / "readme.txt").read_bytes() == b"hello\n"
        (workspace.path / "readme.txt").write_bytes(b"bye\n")
        assert (await _all_results(workspace)).count(b"diff --git") == 1
    assert not (rig.folder / "sprung").exists()


async def test_a_patch_does_not_follow_links_out_of_the_workspace(rig: Rig) -> None:
    """A link is a link in it, also where a folder with tracked files became one; those that lead out are named."""
    secret = rig.folder / "secret"
    secret.mkdir()
    (secret / "shop.py").write_text("not-a-secret\n")
    (secret / "key").write_text("not-a-secret\n")
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        (workspace.path / "src/shop.py").unlink()
        (workspace.path / "src").rmdir()
        (workspace.path / "src").symlink_to(secret)
        (workspace.path / "deep").mkdir()
        (workspace.path / "deep/up").symlink_to("../../../..")
        (workspace.path / "deep/fine").symlink_to("../readme.txt")
        (workspace.path / "readme.txt").unlink()
        (workspace.path / "readme.txt").symlink_to(secret / "key")
        (workspace.path / ".gitattributes").symlink_to(secret / "key")
        (workspace.path / ".gitignore").symlink_to(secret / "key")
        patch = await workspace.patch(LIMIT_BYTES)
        await workspace.push()
    assert b"not-a-secret" not in patch.data
    assert set(patch.links_out) == {"src", "deep/up", "readme.txt", ".gitattributes", ".gitignore"}
    assert git(rig.remote, "ls-tree", "agent/run1", "src").startswith("120000 blob")


async def test_objects_of_another_project_do_not_come_with_a_result(rig: Rig) -> None:
    """The agent points its repository at another project's mirror and commits what is there: it is not read."""
    workspaces = rig.workspaces()
    other = Rig(rig.folder / "other")
    other.folder.mkdir()
    other.begin()
    theirs = other.commit({"plans.txt": b"not-a-secret\n"})
    async with workspaces.open(other.project, None, "theirs") as neighbour:
        objects = next(iter(neighbour.read_only))
        async with workspaces.open(rig.project, None, "run1") as workspace:
            (workspace.path / ".git/objects/info/alternates").write_text(f"{objects}\n")
            (workspace.path / ".git/refs/heads/agent/run1").write_text(f"{theirs}\n")
            assert await _all_results(workspace) == b""
            await workspace.push()
    assert git(rig.remote, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


@pytest.mark.parametrize("wreck", ["gone", "link", "file", "garbage"])
async def test_an_agent_that_wrecks_its_repository_still_has_a_patch(rig: Rig, wreck: str) -> None:
    """`.git` removed, replaced or filled with garbage: the files are what counts."""
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        dot_git = workspace.path / ".git"
        if wreck == "garbage":
            (dot_git / "index").write_bytes(b"garbage")
            (dot_git / "config").write_bytes(b"[core\n\tbare = maybe")
            (dot_git / "HEAD").write_bytes(b"\xff")
        else:
            dot_git.rename(rig.folder / "taken")
        if wreck == "link":
            dot_git.symlink_to(rig.folder / "taken")
        if wreck == "file":
            dot_git.write_text(f"gitdir: {rig.folder}/taken\n")
        (workspace.path / "readme.txt").write_text("bye\n")
        assert b"+bye\n" in (await workspace.patch(LIMIT_BYTES)).data


async def test_what_an_agent_locked_or_buried_is_removed(rig: Rig) -> None:
    """Folders without rights and two thousand folders deep: measured, and gone at the end."""
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        _dig(workspace.path, 2000)
        (workspace.path / "locked").mkdir()
        (workspace.path / "locked/file").write_text("x")
        (workspace.path / "locked").chmod(0)
        assert await workspace.used_bytes() > 2000 * 4096
    assert list((rig.node / "runs").iterdir()) == []


async def test_the_borrowed_mirror_tells_no_password(rig: Rig) -> None:
    """Agents read its objects and their own clone: what is needed to reach the remote is in neither."""
    async with rig.workspaces().open(rig.project, None, "run1") as workspace:
        assert [path.name for path in workspace.read_only] == ["objects"]
        alternates = (workspace.path / ".git/objects/info/alternates").read_text().strip()
        assert {Path(alternates)} == set(workspace.read_only)
        assert set(workspace.read_only.values()) == {alternates}


def _dig(top: Path, depth: int) -> None:
    """Deeper than any path can say."""
    here = os.open(top, os.O_PATH | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_PATH | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)

"""A patch that comes with a session capsule is put into a clone; a hostile one writes and runs nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.contract.workspace_rig import LIMIT_BYTES, Rig, git
from worker.workspaces.restore import PatchUnfit


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A remote with a few files."""
    made = Rig(tmp_path)
    made.begin()
    made.commit({"kept.txt": b"kept\n", "changed.txt": b"old\n", "gone.txt": b"gone\n"})
    return made


def _new_file(path: str, content: str, mode: str = "100644") -> bytes:
    """A patch that adds one file, as git writes it, or would not."""
    raw = content.encode()
    digest = hashlib.sha1(f"blob {len(raw)}\0".encode() + raw, usedforsecurity=False).hexdigest()
    end = "" if content.endswith("\n") else "\n\\ No newline at end of file\n"
    lines = [
        f"diff --git a/{path} b/{path}",
        f"new file mode {mode}",
        f"index {'0' * 40}..{digest}",
        "--- /dev/null",
        f"+++ b/{path}",
        "@@ -0,0 +1 @@",
        f"+{content}",
    ]
    return "\n".join(lines).encode() + end.encode()


def _files(folder: Path) -> dict[str, bytes]:
    """Outside of `.git`, with what links say in place of where they lead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.partition("/")[0] == ".git" or (path.is_dir() and not path.is_symlink()):
            continue
        found[name] = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    return found


async def test_the_work_of_one_clone_goes_on_in_another(rig: Rig) -> None:
    """New, changed, deleted, binary, executable, a link: all of it is there, and one patch again."""
    there = rig.workspaces()
    async with there.open(rig.project, None, "run-1") as first:
        (first.path / "changed.txt").write_text("new\n")
        (first.path / "gone.txt").unlink()
        (first.path / "deep").mkdir()
        (first.path / "deep/raw.bin").write_bytes(bytes(range(256)))
        (first.path / "run.sh").write_text("#!/bin/sh\n")
        (first.path / "run.sh").chmod(0o755)
        (first.path / "link").symlink_to("kept.txt")
        git(first.path, "add", "changed.txt")
        git(first.path, "commit", "-q", "-m", "half of it")
        patch, base, wanted = await first.patch(LIMIT_BYTES), first.base, _files(first.path)
    async with rig.workspaces().open(rig.project, base, "run-1") as second:
        await second.restore(patch.data)
        assert _files(second.path) == wanted
        assert os.access(second.path / "run.sh", os.X_OK)
        (second.path / "after.txt").write_text("after\n")
        again = await second.patch(LIMIT_BYTES)
    assert (again.base, again.files) == (base, patch.files + 1)
    assert b"after.txt" in again.data


@pytest.mark.parametrize(
    "patch",
    [
        _new_file(".git/hooks/post-checkout", "touch /tmp/never"),
        _new_file(".GIT/hooks/post-checkout", "touch /tmp/never"),
        _new_file("deep/.git/config", "[core]"),
        _new_file("../outside.txt", "out"),
        _new_file("/outside.txt", "out"),
        _new_file("way", "..", "120000") + b"\n" + _new_file("way/outside.txt", "out"),
        b"@@ -1 +1 @@\n-half\n",
        b"diff --git a/kept.txt b/kept.txt\n--- a/kept.txt\n+++ b/kept.txt\n@@ -1 +1 @@\n-something else\n+x\n",
    ],
    ids=["hooks", "hooks-by-case", "nested-git", "dots", "root", "through-a-link", "cut-off", "another-base"],
)
async def test_a_patch_writes_nothing_out_of_place(rig: Rig, patch: bytes) -> None:
    """Refused as a whole: neither files, nor `.git`, nor anything beside the clone has changed."""
    async with rig.workspaces().open(rig.project, None, "run-1") as workspace:
        before, hooks = _files(workspace.path), sorted((workspace.path / ".git").rglob("*"))
        beside = sorted(workspace.path.parent.iterdir())
        with pytest.raises(PatchUnfit):
            await workspace.restore(_new_file("good.txt", "good\n") + patch)
        assert _files(workspace.path) == before
        assert sorted((workspace.path / ".git").rglob("*")) == hooks
        assert sorted(workspace.path.parent.iterdir()) == beside


async def test_a_link_that_leads_out_is_only_a_link(rig: Rig, tmp_path: Path) -> None:
    """An agent may make one; what is behind it stays as it is."""
    secret = tmp_path / "secret"
    secret.write_text("mine")
    async with rig.workspaces().open(rig.project, None, "run-1") as workspace:
        await workspace.restore(_new_file("way", str(secret), "120000"))
        assert (workspace.path / "way").readlink() == secret
        assert (await workspace.patch(LIMIT_BYTES)).links_out == ("way",)
    assert secret.read_text() == "mine"


async def test_attributes_of_a_patch_start_nothing(rig: Rig, tmp_path: Path) -> None:
    """A filter that it names is asked neither for the files that come with it nor later."""
    ran = tmp_path / "ran"
    config = tmp_path / "config"
    config.write_text(f'[filter "x"]\n\tsmudge = touch {ran}\n\tclean = touch {ran}\n')
    patch = _new_file(".gitattributes", "* filter=x\n") + _new_file("filtered.txt", "plain\n")
    async with rig.workspaces().open(rig.project, None, "run-1") as workspace:
        git(workspace.path, "config", "include.path", str(config))
        await workspace.restore(patch)
        assert (workspace.path / "filtered.txt").read_text() == "plain\n"
    assert not ran.exists()

"""deploy/docker/backup: what is removed, and what never is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "docker" / "backup"
WITHIN_S = 60.0
OLD = ("2026-01-01T030000Z", "2026-01-02T030000Z", "2026-01-03T030000Z")
pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed (util-linux)")


def _run(folder: Path, kept: str = "2", status: int = 0) -> subprocess.CompletedProcess[str]:
    """With an `mcpfleet` that makes the folder it is told, or fails."""
    program = folder.parent / "bin" / "mcpfleet"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\n[ {status} = 0 ] || exit {status}\nmkdir "$3"\n')
    program.chmod(0o700)
    environ = {"PATH": f"{program.parent}:{os.environ['PATH']}", "BACKUPS_DIR": str(folder), "BACKUPS_KEPT": kept}
    return subprocess.run(
        ["sh", str(SCRIPT)], env=environ, check=False, capture_output=True, text=True, timeout=WITHIN_S
    )


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    """Three of earlier nights, one that was broken off, and somebody's own."""
    folder = tmp_path / "backups"
    for name in (*OLD, f"{OLD[2]}.partial", "before-0.2"):
        (folder / name).mkdir(parents=True)
    return folder


def test_the_newest_stay_and_what_has_another_name_is_not_touched(backups: Path) -> None:
    """Two of the nights, with the new one; what was broken off is nobody's."""
    assert _run(backups).returncode == 0
    names = sorted(path.name for path in backups.iterdir() if path.name != ".lock")
    assert names[0] == OLD[2]
    assert len(names) == 3
    assert names[2] == "before-0.2"


def test_nothing_is_removed_for_a_backup_that_failed(backups: Path) -> None:
    """A ledger whose log is altered must not rotate the good ones away."""
    assert _run(backups, kept="1", status=1).returncode == 1
    assert {*OLD, "before-0.2"} <= {path.name for path in backups.iterdir()}


@pytest.mark.parametrize("kept", ["0", "all", "-1", "007"])
def test_a_number_that_keeps_nothing_is_refused(backups: Path, kept: str) -> None:
    """Before anything is done."""
    refused = _run(backups, kept=kept)
    assert (refused.returncode, len(list(backups.iterdir()))) == (2, 5)


def test_two_at_once_are_one(backups: Path) -> None:
    """The draft of the first is no broken off one."""
    holder = subprocess.Popen(["flock", str(backups / ".lock"), "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"held\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"held\n"
        assert _run(backups).returncode == 3
        assert (backups / f"{OLD[2]}.partial").exists()
    finally:
        holder.communicate(timeout=WITHIN_S)

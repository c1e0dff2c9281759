"""Records of machines on this host: one writer at a time, whole or not at all, never passed over."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.errors import CloudDown
from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.autoscaler.cloud.records import LOCK, RecordFolder, kept_of
from orchestrator.autoscaler.cloud.static import Taken

TAKEN = Taken(kept_of(Order("aaaaaaaaa2", "pool-a", "ours", "pool"), 1.0), "192.0.2.1")


@pytest.fixture
def folder(tmp_path: Path) -> RecordFolder[Taken]:
    """An empty one."""
    return RecordFolder("rack", tmp_path / "state", Taken)


def test_whoever_looks_and_changes_is_alone(folder: RecordFolder[Taken]) -> None:
    """Another process that wanted the lock meanwhile would not get it."""
    with folder.locked():
        other = (folder.folder / LOCK).open("rb")
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    other.close()


def test_what_was_written_is_read_and_removed(folder: RecordFolder[Taken]) -> None:
    """By another object, as another process has it."""
    with folder.locked():
        folder.write("a", TAKEN)
    other = RecordFolder("rack", folder.folder, Taken)
    assert other.all() == {"a": TAKEN}
    other.remove("a")
    other.remove("a")
    assert folder.all() == {}


def test_a_record_that_cannot_be_read_is_not_passed_over(folder: RecordFolder[Taken]) -> None:
    """Its machine would be forgotten, and its host taken twice."""
    with folder.locked():
        folder.write("a", TAKEN)
    (folder.folder / "a/machine.json").write_text("{")
    with pytest.raises(CloudDown, match=r"a/machine\.json cannot be understood"):
        folder.all()


def test_a_folder_that_cannot_be_used_is_a_cloud_that_is_down(tmp_path: Path) -> None:
    """A full or read-only disk passes."""
    (tmp_path / "file").write_text("")
    folder = RecordFolder("rack", tmp_path / "file/state", Taken)
    with pytest.raises(CloudDown, match="cannot be used: Not a directory"), folder.locked():
        pass

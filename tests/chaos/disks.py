"""Small disks, so that one can be full without hurting the machine: a tmpfs per folder, filled by a ballast file.

Mounted as root, each with its owner as the name of its source (`owner.py`); `Disks.sweep` removes what a
killed run left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from tests.chaos.owner import is_orphan, owned

SIZE_BYTES = 48 * 1024 * 1024
"""Far above what a run needs: it fills up by its ballast alone."""
BALLAST = "ballast"
ANSWER_S = 20.0


class Disks:
    """The small disks of one run."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)

    @classmethod
    @contextmanager
    def mounted(cls, folders: Sequence[Path]) -> Iterator[Disks]:
        """One per folder, empty; removed at the end.

        Raises:
            OSError, subprocess.CalledProcessError: not root, or not allowed here.
        """
        cls.sweep()
        with ExitStack() as stack:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                source = owned(folder.name)
                _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES},mode=700", source, str(folder))
                stack.callback(_unmount, folder)
            yield cls(folders)

    @staticmethod
    def sweep() -> list[Path]:
        """Remove what runs left behind that were killed; where it was."""
        lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        found = [Path(line[1]) for line in lines if is_orphan(line[0])]
        for folder in found:
            _unmount(folder)
        return found

    @staticmethod
    def fill(folder: Path) -> None:
        """Not a byte is left. What the processes free meanwhile is taken too."""
        with contextlib.suppress(OSError), (folder / BALLAST).open("ab", buffering=0) as ballast:
            os.posix_fallocate(ballast.fileno(), ballast.tell(), max(1, shutil.disk_usage(folder).free))
        with contextlib.suppress(OSError), (folder / BALLAST).open("ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    @staticmethod
    def relieve(folder: Path) -> None:
        """There is room again."""
        (folder / BALLAST).unlink(missing_ok=True)


@cache
def why_not() -> str | None:
    """What this machine lacks for it."""
    if os.geteuid() != 0:
        return "small disks: not root"
    if shutil.which("mount") is None:
        return "small disks: no mount here (apt-get install mount)"
    try:
        with tempfile.TemporaryDirectory(prefix="mcpfleet-disk-") as folder, Disks.mounted([Path(folder)]):
            return None
    except (OSError, subprocess.SubprocessError) as error:
        return f"small disks: not allowed here ({error})"


@contextmanager
def on_loop(folder: Path) -> Iterator[Path]:
    """A file system that is not in memory, of the same size, on a loop device; where it is mounted.

    Raises:
        OSError, subprocess.CalledProcessError: not root, or not allowed here.
    """
    image, mountpoint = folder / "image", folder / "disk"
    mountpoint.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    _run("mkfs.ext4", "-q", "-m", "0", str(image))
    _run("mount", "-o", "loop", str(image), str(mountpoint))
    try:
        yield mountpoint
    finally:
        _unmount(mountpoint)


@cache
def why_no_loop() -> str | None:
    """What this machine lacks for `on_loop`."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return "disks on loop devices: not root, or no mkfs.ext4"
    try:
        with tempfile.TemporaryDirectory(prefix="mcpfleet-loop-") as folder, on_loop(Path(folder)):
            return None
    except (OSError, subprocess.SubprocessError) as error:
        return f"disks on loop devices: not allowed here ({error})"


def _unmount(folder: Path) -> None:
    """Lazily: a process that is just being killed may still be in there."""
    _run("umount", "--lazy", str(folder))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=ANSWER_S)

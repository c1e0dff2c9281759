"""What changed in files that an agent is still at work in, taken over without being led astray.

Git opens files by their whole path. While an agent lives it can exchange a folder for a link to /etc between
git's look and git's read, and what is read would come back to it with its session. So each file is opened here
folder by folder, never through a link, and git is shown the copies. Refuses pipes and devices.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.workspaces.errors import PatchTooLarge
from worker.workspaces.git import Git, Repository

TIMES = 4
"""What may be read for a patch of one byte: a large file may have a small change."""
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_A_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
_GONE = b"0"


@dataclass(frozen=True, slots=True)
class _Copy:
    """One name: git's mode, and where its bytes are; gone where there is nothing that git would keep."""

    name: bytes
    mode: bytes = _GONE


class Copies:
    """For one look. `folder` is the host's own."""

    def __init__(self, work: Path, folder: Path, git: Git, limit_bytes: int) -> None:
        self._work, self._folder, self._git = work, folder, git
        self._limit_bytes, self._left_bytes = limit_bytes, TIMES * limit_bytes

    async def add(self, at: Repository, names: Sequence[bytes]) -> None:
        """These of the agent's files into the index `at`, as they are.

        Raises:
            PatchTooLarge: they are more than may be read.
        """
        try:
            copies = await asyncio.to_thread(self._copied, names)
            kept = [number for number, copy in enumerate(copies) if copy.mode != _GONE]
            paths = "".join(f"{self._folder / str(number)}\n" for number in kept)
            words = ("hash-object", "-w", "--no-filters", "--stdin-paths")
            said = await self._git.run(*words, at=Repository(at.folder), given=paths.encode())
            digests = dict(zip(kept, said.split(), strict=True))
            lines = [
                copy.mode + b" " + digests.get(number, b"0" * 40) + b"\t" + copy.name + b"\0"
                for number, copy in enumerate(copies)
            ]
            await self._git.run("update-index", "-z", "--replace", "--index-info", at=at, given=b"".join(lines))
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _copied(self, names: Sequence[bytes]) -> list[_Copy]:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        copies = []
        for number, name in enumerate(names):
            mode, data = self._taken(name)
            copies.append(_Copy(name, mode))
            if mode != _GONE:
                (self._folder / str(number)).write_bytes(data)
        return copies

    def _taken(self, name: bytes) -> tuple[bytes, bytes]:
        """Git's mode, and the bytes; gone, where it went away or a link is in the way: git has no such file either."""
        *folders, last = name.split(b"/")
        at = os.open(self._work, _FOLDER)
        try:
            for part in folders:
                inner = os.open(part, _FOLDER, dir_fd=at)
                os.close(at)
                at = inner
            return self._read(at, last)
        except OSError as error:
            if error.errno not in _NOT_A_FILE:
                raise  # a disk in trouble is no file that went away
            return _GONE, b""
        finally:
            os.close(at)

    def _read(self, folder: int, name: bytes) -> tuple[bytes, bytes]:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            return b"120000", os.readlink(name, dir_fd=folder)
        file = os.open(name, _FILE, dir_fd=folder)
        try:
            mode = os.fstat(file).st_mode
            with os.fdopen(file, "rb", closefd=False) as opened:
                data = opened.read(self._left_bytes + 1) if stat.S_ISREG(mode) else None
        finally:
            os.close(file)
        if data is None:
            return _GONE, b""
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise PatchTooLarge(self._limit_bytes)
        return b"100755" if mode & stat.S_IXUSR else b"100644", data

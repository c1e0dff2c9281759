"""How much room folders take, and how they are removed, whatever an agent did to them.

Owns both by `du`, `chmod` and `rm` of coreutils: they go through trees of any depth without following a
symlink, which Python's own walks do not (a recursion a thousand folders deep ends them). Refuses to decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from worker.workspaces.errors import DiskFull

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_PATH = os.defpath
_DENIED = b"Permission denied"


@dataclass(frozen=True, slots=True)
class WorkspaceLimits:
    """Of one node. Bytes are those that a disk gives for a file, not its length."""

    workspace_bytes: int = 5 * 2**30
    """One run's files, its HOME, and what its results take."""
    mirror_bytes: int = 10 * 2**30
    """One project's mirror."""
    total_bytes: int = 50 * 2**30
    """All of it together, when a run begins."""
    reserve_bytes: int = 2**30
    """Left free on the disk: for the node's own journal, among others."""
    fetch_s: float = 300.0
    """For one fetch, and for waiting until another's is over."""
    push_s: float = 120.0
    fresh_s: float = 2.0
    """A fetch that began so shortly before a run asked is good enough for it."""
    idle_s: float = 14 * 86400.0
    """Until a mirror that nobody used is removed."""
    look_every_s: float = 5.0
    """At the room that a run or a fetch takes."""


async def used_bytes(folder: Path) -> int:
    """What it takes on the disk. Folders that it was locked out of are opened first."""
    out, said = await _said("du", "-s", "-x", "-B1", "--", str(folder))
    if _DENIED in said:
        await _open_up(folder)
        out, _ = await _said("du", "-s", "-x", "-B1", "--", str(folder))
    size = out.partition(b"\t")[0]
    return int(size) if size.isdigit() else 0


async def removed(folder: Path) -> bool:
    """Whether it is gone."""
    _, said = await _said("rm", "-rf", "--one-file-system", "--", str(folder))
    if _DENIED in said:
        await _open_up(folder)
        await _said("rm", "-rf", "--one-file-system", "--", str(folder))
    return not await asyncio.to_thread(os.path.lexists, folder)


def left_bytes(folder: Path) -> int:
    """Free on its disk, for whoever runs the node."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def check_free(folder: Path, limits: WorkspaceLimits) -> None:
    """Raises DiskFull: the disk is down to its reserve."""
    left = left_bytes(folder)
    if left < limits.reserve_bytes:
        raise DiskFull(f"{folder} has {left} bytes free and keeps {limits.reserve_bytes}")


async def _open_up(folder: Path) -> None:
    """`chmod 000` of an agent's own folders; -R follows no symlink."""
    await _said("chmod", "-R", "u+rwX", "--", str(folder))


async def _said(program: str, *words: str) -> tuple[bytes, bytes]:
    found = shutil.which(program, path=_PATH) or program
    process = await asyncio.create_subprocess_exec(
        *(found, *words),
        env={"LC_ALL": "C", "PATH": _PATH},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        return await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

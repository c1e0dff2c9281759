"""Who uses a folder now. The kernel drops a lock when its holder dies, however it dies.

Owns files beside what they guard, taken with flock. Refuses to wait without a limit. Each lock has an open
file of its own, so runs of one process stand in each other's way as those of two processes do.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

ASK_EVERY_S = 0.05


@contextlib.contextmanager
def taken(path: Path, *, shared: bool = False) -> Iterator[int | None]:
    """Its descriptor, or None where somebody holds it."""
    descriptor = _try(path, shared=shared)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextlib.asynccontextmanager
async def waited_for(path: Path, limit_s: float, *, shared: bool = False) -> AsyncIterator[int | None]:
    """The same, after waiting for it; None after `limit_s`."""
    descriptor = _try(path, shared=shared)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while descriptor is None:
                await asyncio.sleep(ASK_EVERY_S)
                descriptor = _try(path, shared=shared)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def alone(descriptor: int) -> bool:
    """Make a shared lock that is held exclusive. Where others share it, it is shared as before."""
    if _turned(descriptor, fcntl.LOCK_EX):
        return True
    _turned(descriptor, fcntl.LOCK_SH)
    return False


def shared_again(descriptor: int) -> bool:
    """The way back. False where somebody was quicker: flock does not change a lock in one step."""
    return _turned(descriptor, fcntl.LOCK_SH)


def _turned(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try(path: Path, *, shared: bool) -> int | None:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            if _is_still_there(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.close(descriptor)  # its last holder removed the file between our open and our lock


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

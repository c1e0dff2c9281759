"""One fleet per state directory. The kernel drops the lock when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from orchestrator.local.errors import AlreadyUp

LOCK_FILE = "lock"


class StateLock:
    """Held from entry to exit."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._descriptor = -1

    def take(self) -> None:
        """Raises AlreadyUp: somebody holds it."""
        path = self._state_dir / LOCK_FILE
        while True:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(self._descriptor, 20).decode(errors="replace").strip()
                os.close(self._descriptor)
                raise AlreadyUp(self._state_dir, int(holder) if holder.isdecimal() else 0) from None
            if self._is_still_there(path):
                break
            os.close(self._descriptor)  # its last holder removed the file between our open and our lock
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def _is_still_there(self, path: Path) -> bool:
        try:
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go, and leave no file behind."""
        (self._state_dir / LOCK_FILE).unlink(missing_ok=True)
        os.close(self._descriptor)

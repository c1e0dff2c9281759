"""One process whose id somebody else wrote down, ended for certain.

The SDK starts the sandbox and tells nobody which process that is. Its wrapper writes the id; a pidfd keeps a
later process of the same number from being meant.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


class OneProcess:
    """Named by a file that the process itself writes before it becomes what it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)

    def pid(self) -> int | None:
        """None before it was written."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return None

    def kill(self) -> None:
        """SIGKILL; gone already is well. Its process namespace goes with it."""
        pid = self.pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if self._is_it(pid):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)

    def forget(self) -> None:
        """It is over: the number may belong to another from now on."""
        self.path.unlink(missing_ok=True)

    def _is_it(self, pid: int) -> bool:
        """Still a child of ours: a number that was used again is another's child, or names no sandbox."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return False
        return f"\nPPid:\t{os.getpid()}\n" in status

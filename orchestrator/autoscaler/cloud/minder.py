"""The parent of one local machine's process: ends it on SIGTERM within a limit, and when nobody asks for it any more.

Run as a script by `local_process`, in a session of its own. An orchestrator that is gone for good cannot
end what it started, so each machine does that itself: past its date, and past as long a time since its
fleet was last heard of as it was given at first (the modification time of the file `heard-of`).
Imports nothing outside the standard library: one of these lives beside each machine.
"""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

HEARD_OF = "heard-of"
CANNOT_START = 127
"""As shells say it."""


def end_at_s(expires_at: float, ttl_s: float, heard_at: float) -> float:
    """Wall clock at which a machine ends itself; each time its fleet is heard of gives it its whole time again."""
    return max(expires_at, heard_at + ttl_s) if expires_at else math.inf


def main(folder: Path, expires_at: float, ttl_s: float, stop_s: float, command: list[str]) -> int:
    """Start the command and mind it. Returns its status."""
    asked: list[int] = []
    waking, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error}\n")
        return CANNOT_START
    told_at_s = math.inf
    while child.poll() is None:
        left_s = end_at_s(expires_at, ttl_s, _modified(folder / HEARD_OF)) - time.time()
        if told_at_s == math.inf and (asked or left_s <= 0):
            child.terminate()
            told_at_s = time.monotonic()
        grace_s = told_at_s + stop_s - time.monotonic()
        if grace_s <= 0:
            child.kill()
        _wait(waking, max(0.01, min(left_s if told_at_s == math.inf else math.inf, grace_s)))
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _wait(waking: int, limit_s: float) -> None:
    """Until a signal arrives, or that long."""
    ready, _, _ = select.select([waking], [], [], min(limit_s, 3600.0))
    if ready:
        os.read(waking, 64)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


if __name__ == "__main__":
    where, expires, ttl, stop = sys.argv[1:5]
    sys.exit(main(Path(where), float(expires), float(ttl), float(stop), sys.argv[5:]))

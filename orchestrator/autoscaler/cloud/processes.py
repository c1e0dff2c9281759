"""Processes that outlive whoever started them: started without a parent's ties, and known again for certain.

Owns pid, time of birth and mark. A pid alone is nobody: numbers are used again.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import psutil

MARK = "_MCPFLEET_MACHINE"
"""Variable that a machine's processes inherit; not `MCPFLEET_`, which settings would refuse as unknown."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


def start(command: tuple[str, ...], environ: Mapping[str, str], log: Path) -> int:
    """The pid of a process in a session of its own, which holds nothing of ours but the log."""
    return os.posix_spawn(
        command[0],
        command,
        dict(environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
    )


def birth(pid: int) -> str:
    """Tells a process from a later one with its number, after a reboot too; empty where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{BOOT.read_text().strip()}/{fields[19]}"  # starttime in clock ticks since boot: proc(5)
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    with contextlib.suppress(psutil.Error):
        return f"{psutil.Process(pid).create_time():.2f}"
    return ""


def is_alive(pid: int, born: str) -> bool:
    """It is that process, and has not ended. One of our own that has is reaped here."""
    if not born or birth(pid) != born:
        return False
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:  # started by another process: whoever adopted it reaps it
        pass
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def marked(mark: str) -> list[int]:
    """Pids of living processes that carry the mark, parents first."""
    found = []
    for process in psutil.process_iter(["pid"]):
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process.create_time(), process.pid))
    return [pid for _, pid in sorted(found)]


def tell(pid: int, number: signal.Signals) -> None:
    """Send a signal; to one that is gone, nothing."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

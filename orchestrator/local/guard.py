"""Ends the children of a fleet whose parent died without a chance to: `kill -9`, the OOM killer, a crash.

Run as a script by `GuardLine`, in a session of its own, with a pipe from the parent as its standard
input: when the pipe closes without a farewell, every registered process group is asked to end, then
made to, in the order stop would have taken; then the registered files are removed. A child that was
started in the parent's last moment is known by the mark in its environment. Imports nothing outside
the standard library: it must cost little and outlive everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

POLL_S = 0.05
FAREWELL = "bye"
MARK = "_MCPFLEET_GUARD"
"""Variable with the parent's mark; not `MCPFLEET_`, which settings would refuse as unknown."""


class Charge:
    """What the parent told: groups and the seconds each deserves, files to remove, its mark."""

    def __init__(self) -> None:
        self.groups: dict[int, float] = {}
        self.leftovers: list[str] = []
        self.mark = ""
        self.is_dismissed = False

    def hear(self, line: str) -> None:
        """One line from the parent; half of one, if it died while it wrote."""
        if not line.endswith("\n"):
            return
        said = json.loads(line)
        match said["say"]:
            case "started":
                self.groups[said["group"]] = said["grace_s"]
            case "ended":
                self.groups.pop(said["group"], None)
            case "mark":
                self.mark = said["mark"]
            case "remove":
                self.leftovers.append(said["path"])
            case "bye":
                self.is_dismissed = True


def main(lines: list[str]) -> None:
    """Act on everything the parent had said, unless it said farewell."""
    charge = Charge()
    for line in lines:
        charge.hear(line)
    if charge.is_dismissed:
        return
    for group in marked(charge.mark) - charge.groups.keys():
        end_group(group, 0.0)
    for group, grace_s in reversed(charge.groups.items()):
        end_group(group, grace_s)
    for group in marked(charge.mark):  # forked while the first look was taken
        end_group(group, 0.0)
    for path in charge.leftovers:
        _remove(Path(path))


def end_group(group: int, grace_s: float) -> None:
    """Ask, wait at most `grace_s`, then kill the group and whatever descends from its leader."""
    family = descendants(group)
    _signal_group(group, signal.SIGTERM)
    until = time.monotonic() + grace_s
    while is_alive(group) and time.monotonic() < until:
        time.sleep(POLL_S)
    _signal_group(group, signal.SIGKILL)
    for pid, born in family.items():
        if birth(pid) == born:
            _signal(pid, signal.SIGKILL)


def descendants(pid: int) -> dict[int, str]:
    """Children of children, by pid, with their time of birth; empty where there is no /proc.

    MCP servers are started in sessions of their own, so their node's group does not hold them.
    """
    parents = _parents()
    found: dict[int, str] = {}
    wave = {pid}
    while wave:
        wave = {child for child, parent in parents.items() if parent in wave and child not in found}
        found |= {child: birth(child) for child in wave}
    return found


def marked(mark: str) -> set[int]:
    """Groups of processes whose environment carries the mark; none where there is no /proc."""
    wanted = f"{MARK}={mark}".encode()
    found: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is gone, or not ours to look into
            if mark and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.add(os.getpgid(int(entry.name)))
    return found


def children(pid: int) -> list[int]:
    """Processes whose parent it is."""
    return [child for child, parent in _parents().items() if parent == pid]


def is_zombie(pid: int) -> bool:
    """Ended, and not collected by its parent yet."""
    fields = _stat(pid)
    return bool(fields) and fields[0] == "Z"


def is_alive(group: int) -> bool:
    """Whether any process of the group is there, zombies not counted where /proc tells."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not is_zombie(group)


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields:
            found[int(entry.name)] = int(fields[1])
    return found


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from `state` on. Source: proc(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def birth(pid: int) -> str:
    """Clock ticks since boot at its start: tells a process from a later one with its number."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    main(sys.stdin.readlines())

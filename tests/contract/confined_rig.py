"""Runs that are limited: what uses too much, and whether this machine lets anybody limit them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.confines.groups import family, family_name
from worker.confines.hierarchies import Hierarchy, found

MEMORY_BYTES = 512 * 2**20
BOMB = "bomb() { bomb | bomb & }; bomb; sleep 1; sleep 1; ls"
"""The classic; what comes after it wants processes too."""
HOG = "python3 -c 'x = bytearray(900 << 20); print(len(x))'"


def _hierarchies() -> tuple[Hierarchy, ...]:
    return found(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())


def why_no_groups() -> str | None:
    """What keeps this machine's tests from real control groups."""
    made, why = family(_hierarchies(), family_name(Path(f"/tried-{os.getpid()}")))
    if made is None:
        return "; ".join(why) or "no control groups"
    made.close()
    missing = {"memory", "pids"} - made.controllers
    return f"no group limits {sorted(missing)}" if missing else None


needs_groups = pytest.mark.skipif(why_no_groups() is not None, reason=f"control groups: {why_no_groups()}")


def groups_of(home: Path) -> list[Path]:
    """Of this sidecar's runs, wherever they are mounted."""
    name = family_name(home)
    return [
        group for each in _hierarchies() for base in each.root.rglob(name) for group in base.iterdir() if group.is_dir()
    ]


def forget_groups(home: Path) -> None:
    """What a killed node leaves until its next start: its runs' groups, empty, and their folder."""
    for each in _hierarchies():
        for base in list(each.root.rglob(family_name(home))):
            for group in [path for path in base.iterdir() if path.is_dir()] + [base]:
                group.rmdir()

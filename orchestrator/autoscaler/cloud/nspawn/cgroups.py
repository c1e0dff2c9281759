"""The control group of each machine: who runs in it, what it may use, and its end.

Owns `mcpfleet-vps/<machine>` in every hierarchy that systemd inside a machine or a limit needs: version 1,
version 2 and both at once. The kernel's list of a group's processes is the only truth about whether a
machine runs. Refuses to touch any other group.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.autoscaler.cloud.nspawn.waiting import until

FAMILY = "mcpfleet-vps"
V1_NEEDED = frozenset({"name=systemd", "memory", "cpu", "cpuacct", "pids"})
PERIOD_US = 100_000
GONE_WITHIN_S = 15.0
PROCESSES = "cgroup.procs"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree of control groups."""

    root: Path
    is_v2: bool


def mounted(mounts: str) -> tuple[Hierarchy, ...]:
    """Those of /proc/self/mounts that a machine needs."""
    found: dict[Path, Hierarchy] = {}
    for line in mounts.splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and V1_NEEDED & set(options.split(","))):
            found[Path(where)] = Hierarchy(Path(where), is_v2=kind == "cgroup2")
    return tuple(found.values())


class Cgroups:
    """The groups of our machines in these hierarchies."""

    def __init__(self, hierarchies: tuple[Hierarchy, ...]) -> None:
        self._hierarchies = hierarchies

    def names(self) -> set[str]:
        """Machines that have one, somewhere."""
        families = (hierarchy.root / FAMILY for hierarchy in self._hierarchies)
        return {entry.name for family in families for entry in family.glob("*") if entry.is_dir()}

    def make(self, machine_id: str, *, cpus: int, memory_bytes: int) -> list[Path]:
        """Its groups, limited; the files into which a process writes its number to be in them.

        Raises:
            OSError: the kernel refuses.
        """
        for hierarchy in self._hierarchies:
            group = hierarchy.root / FAMILY / machine_id
            group.parent.mkdir(exist_ok=True)
            if hierarchy.is_v2:
                _enable(hierarchy.root)
                _enable(group.parent)
            group.mkdir(exist_ok=True)
            _limit(group, cpus, memory_bytes)
        return [hierarchy.root / FAMILY / machine_id / PROCESSES for hierarchy in self._hierarchies]

    def processes(self, machine_id: str) -> set[int]:
        """All that runs in it, and below it."""
        found: set[int] = set()
        for hierarchy in self._hierarchies:
            for group in _tree(hierarchy.root / FAMILY / machine_id):
                with contextlib.suppress(OSError):  # a group that went away meanwhile, or holds threads only
                    found.update(map(int, (group / PROCESSES).read_text().split()))
        return found

    async def kill(self, machine_id: str) -> None:
        """Every process, at once, and those that they start meanwhile; returns when there is none.

        Raises:
            OSError: they are still there after `GONE_WITHIN_S`.
        """
        if not await until(lambda: self._killed(machine_id), GONE_WITHIN_S):
            raise OSError(f"processes {sorted(self.processes(machine_id))} of machine {machine_id} do not end")

    async def remove(self, machine_id: str) -> None:
        """The groups, once nothing runs in them; the family with its last machine.

        What a killed creation had started may enter only now: it is ended too.

        Raises:
            OSError: they are still busy after `GONE_WITHIN_S`.
        """
        for hierarchy in self._hierarchies:
            family = hierarchy.root / FAMILY
            if not await until(partial(self._emptied, machine_id, family / machine_id), GONE_WITHIN_S):
                raise OSError(f"{family / machine_id} is still busy")
            with contextlib.suppress(OSError):  # other machines are in it
                family.rmdir()

    def _emptied(self, machine_id: str, group: Path) -> bool:
        return _removed(group) or (self._killed(machine_id) and _removed(group))

    def _killed(self, machine_id: str) -> bool:
        pids = self.processes(machine_id)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids


def _tree(group: Path) -> list[Path]:
    """A group and those below, the deepest first."""
    return [Path(folder) for folder, _, _ in os.walk(group, topdown=False)]


def _removed(group: Path) -> bool:
    for each in _tree(group):
        with contextlib.suppress(OSError):
            each.rmdir()
    return not group.exists()


def _enable(group: Path) -> None:
    """What the groups below may limit, of what the kernel offers here."""
    offered = (group / "cgroup.controllers").read_text().split()
    for controller in {"cpu", "memory", "pids"} & set(offered):
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _limit(group: Path, cpus: int, memory_bytes: int) -> None:
    """In the hierarchies that can; the same names never mean two things."""
    limits = {
        "memory.limit_in_bytes": str(memory_bytes),
        "cpu.cfs_period_us": str(PERIOD_US),
        "cpu.cfs_quota_us": str(PERIOD_US * cpus),
        "memory.max": str(memory_bytes),
        "cpu.max": f"{PERIOD_US * cpus} {PERIOD_US}",
    }
    for name, value in limits.items():
        file = group / name
        if file.exists():
            file.write_text(value)

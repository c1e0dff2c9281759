"""A control group for each run: what all of it may use together, what it met, and its end.

Owns one family of groups, a node's for one sidecar. Refuses to touch any other group.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from worker.confines.hierarchies import PROCESSES, Hierarchy, NotOurs, pids_in, prepared
from worker.confines.processes import killed

PERIOD_US = 100_000
GONE_WITHIN_S = 10.0
ASK_EVERY_S = 0.02
NAME_CHARS = 60


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one run may use, all its processes together. None is no limit."""

    memory_bytes: int | None = None
    cpus: float | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class Met:
    """What the kernel did to a run because of its limits."""

    killed: int = 0
    """Processes that it ended for want of memory."""
    forks_refused: int = 0


class Family:
    """The groups of this node's runs, in every hierarchy that limits something."""

    def __init__(self, bases: dict[Path, Hierarchy], name: str) -> None:
        self._bases, self.name = bases, name
        self.controllers = frozenset(name for hierarchy in bases.values() for name in hierarchy.controllers)
        self.version = 2 if any(hierarchy.is_v2 for hierarchy in bases.values()) else 1

    def make(self, run: str, allowance: Allowance) -> Group:
        """The run's.

        Raises:
            OSError: the kernel refuses.
            NotOurs: the family's own group is gone and cannot be made again.
        """
        for base, hierarchy in self._bases.items():
            if not base.is_dir():  # somebody tidied up
                prepared(hierarchy, self.name)
        paths = tuple(base / _named(run) for base in self._bases)
        for path in paths:
            path.mkdir(exist_ok=True)
            _limit(path, allowance)
        return Group(paths)

    def left(self, living: Iterable[str]) -> list[Group]:
        """Groups of runs that are over, also below where an earlier start of this node was."""
        kept = {_named(run) for run in living}
        by_name: dict[str, list[Path]] = {}
        for base in self._all_bases():
            for path in _folders(base):
                if path.name not in kept:
                    by_name.setdefault(path.name, []).append(path)
        return [Group(tuple(paths)) for paths in by_name.values()]

    def forget_empty(self) -> None:
        """Bases of earlier starts that are somewhere else now."""
        for base in self._all_bases() - set(self._bases):
            with contextlib.suppress(OSError):
                base.rmdir()

    def close(self) -> None:
        """The bases too, where no run is left in them."""
        for base in self._bases:
            with contextlib.suppress(OSError):
                base.rmdir()

    def _all_bases(self) -> set[Path]:
        roots = {hierarchy.root for hierarchy in self._bases.values()}
        elsewhere = {
            Path(folder) / self.name for root in roots for folder, below, _ in os.walk(root) if self.name in below
        }
        return elsewhere | set(self._bases)


class Group:
    """One run's."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._paths = paths

    @property
    def entrances(self) -> tuple[str, ...]:
        """Files into which a process writes its number to be in it, with all that it starts."""
        return tuple(str(path / PROCESSES) for path in self._paths)

    def processes(self) -> set[int]:
        """All that runs in it."""
        return {pid for path in self._paths for pid in pids_in(path)}

    def met(self) -> Met:
        """Until now."""
        killed_count = refused = 0
        for path in self._paths:
            killed_count = max(
                killed_count,
                _count(path / "memory.events", "oom_kill"),
                _count(path / "memory.oom_control", "oom_kill"),
            )
            refused = max(refused, _count(path / "pids.events", "max"))
        return Met(killed_count, refused)

    async def end(self) -> int | None:
        """Nothing of it is left after this; how many were still there. None: they do not go."""
        found: set[int] = set()
        self._stop_forks()
        try:
            async with asyncio.timeout(GONE_WITHIN_S):
                while not self._removed():
                    for pid in (now := self.processes()):
                        killed(pid)
                    found |= now
                    await asyncio.sleep(ASK_EVERY_S)
        except TimeoutError:
            return None
        return len(found)

    def _stop_forks(self) -> None:
        """A fork bomb is faster than any loop that kills."""
        for path in self._paths:
            with contextlib.suppress(OSError):
                if (path / "pids.max").exists():
                    (path / "pids.max").write_text("0")

    def _removed(self) -> bool:
        for path in self._paths:
            for each in reversed(_tree(path)):
                with contextlib.suppress(OSError):
                    each.rmdir()
        return not any(path.exists() for path in self._paths)


def family(hierarchies: Iterable[Hierarchy], name: str) -> tuple[Family | None, tuple[str, ...]]:
    """What can be made, and why the rest cannot."""
    bases, why = {}, []
    for hierarchy in hierarchies:
        try:
            bases[prepared(hierarchy, name)] = hierarchy
        except NotOurs as error:
            why.append(str(error))
    return (Family(bases, name) if bases else None), tuple(why)


def family_name(folder: Path) -> str:
    """The same at every start of whoever owns the folder, and nobody else's."""
    return f"mcpfleet-agents-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"


def _named(run: str) -> str:
    """A name of a folder: callers may choose what a run's name is made of."""
    shown = re.sub(r"[^A-Za-z0-9_-]", "-", run)[:NAME_CHARS]
    return f"{shown}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"


def _limit(group: Path, allowance: Allowance) -> None:
    """In the hierarchies that can; the same names never mean two things.

    Memory before memory with swap: the kernel wants the second no smaller than the first.
    """
    limits: dict[str, str] = {}
    if allowance.memory_bytes is not None:
        limits |= dict.fromkeys(("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), str(allowance.memory_bytes))
        limits |= {"memory.max": str(allowance.memory_bytes), "memory.swap.max": "0", "memory.oom.group": "1"}
    if allowance.processes is not None:
        limits["pids.max"] = str(allowance.processes)
    if allowance.cpus is not None:
        quota = str(max(1000, round(PERIOD_US * allowance.cpus)))
        limits |= {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": quota, "cpu.max": f"{quota} {PERIOD_US}"}
    for name, value in limits.items():
        if (group / name).exists():
            (group / name).write_text(value)


def _count(file: Path, key: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(value) for name, _, value in (line.partition(" ") for line in lines) if name == key), 0)


def _folders(base: Path) -> list[Path]:
    try:
        return [entry for entry in base.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _tree(group: Path) -> list[Path]:
    return [Path(folder) for folder, _, _ in os.walk(group)]

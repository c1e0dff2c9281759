"""Which control groups this process may make, version 1 or 2, found by trying.

Owns the kernel's two forms: where our own group is, and what a hierarchy can limit. Refuses to touch any group
but our own and those that it made below it. Source: cgroups(7), and the kernel's cgroup-v1 and cgroup-v2 pages.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.confines.processes import family_of

WANTED = frozenset({"memory", "pids", "cpu"})
PROCESSES = "cgroup.procs"
NODE = "mcpfleet-node"
"""Of version 2: a group that hands controllers on may hold no process, so the node moves into one of its own."""
SERVICE = ".service"
"""Of systemd: all that is in such a group belongs to the node, whoever its parent is by now."""
MOVES_MAX = 20


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One tree of groups that is mounted, from our own group down."""

    own: Path
    root: Path
    """Where it is mounted."""
    controllers: frozenset[str]
    is_v2: bool


class NotOurs(Exception):
    """Why no group can be made here."""


def found(mountinfo: str, own: str) -> tuple[Hierarchy, ...]:
    """What of /proc/self/mountinfo and /proc/self/cgroup can limit anything, where its files can be seen."""
    ours = dict(_own_groups(own))
    hierarchies = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in {"cgroup", "cgroup2"}:
            continue
        _, _, _, shown, where, *_ = before.split()
        controllers = WANTED & set(options.split(",")) if kind == "cgroup" else {""}
        for name in sorted(controllers)[:1]:
            group = Path(where) / _below(ours.get(name, "/"), shown)
            offered = _offered(group) if kind == "cgroup2" else controllers
            if group.is_dir() and offered:
                hierarchies.append(Hierarchy(group, Path(where), frozenset(offered), is_v2=kind == "cgroup2"))
    return tuple(hierarchies)


def prepared(hierarchy: Hierarchy, family: str) -> Path:
    """The group that runs' groups go into, made.

    Raises:
        NotOurs: the kernel refuses, or the group has processes that are not ours to move.
    """
    base = hierarchy.own / family
    try:
        if hierarchy.is_v2:
            _hand_on(hierarchy)
        base.mkdir(exist_ok=True)
        if hierarchy.is_v2:
            _enable(base, hierarchy.controllers)
        tried = base / "tried"  # a folder that can be made may still have files that cannot be written
        with contextlib.suppress(FileExistsError):
            tried.mkdir()
        try:
            for name in limits_of(hierarchy):
                os.close(os.open(tried / name, os.O_WRONLY | os.O_CLOEXEC))
        finally:
            tried.rmdir()
    except OSError as error:
        raise NotOurs(f"{error.filename or hierarchy.own}: {error.strerror or error}") from error
    return base


def limits_of(hierarchy: Hierarchy) -> tuple[str, ...]:
    """Files that every group of it has, if it limits what it says it does."""
    v2 = {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"}
    v1 = {"memory": "memory.limit_in_bytes", "pids": "pids.max", "cpu": "cpu.cfs_quota_us"}
    names = v2 if hierarchy.is_v2 else v1
    return (PROCESSES, *(names[controller] for controller in sorted(hierarchy.controllers)))


def pids_in(group: Path) -> set[int]:
    """Those of one group, not of those below."""
    try:
        return set(map(int, (group / PROCESSES).read_text().split()))
    except OSError:  # gone meanwhile
        return set()


def _hand_on(hierarchy: Hierarchy) -> None:
    """Our own group gives its controllers to those below; all that is in it moves aside first."""
    handed = (hierarchy.own / "cgroup.subtree_control").read_text().split()
    if hierarchy.controllers <= set(handed):
        return
    if hierarchy.own != hierarchy.root or (hierarchy.own / "cgroup.type").exists():
        _move_aside(hierarchy.own)
    _enable(hierarchy.own, hierarchy.controllers)


def _move_aside(own: Path) -> None:
    beside = own / NODE
    for _ in range(MOVES_MAX):
        pids = pids_in(own)
        if not pids:
            return
        strangers = set() if own.name.endswith(SERVICE) else pids - family_of(os.getpid())
        if strangers & pids_in(own):
            why = f"{own} holds processes that are not the node's ({sorted(strangers)[:3]}, ...)"
            raise NotOurs(f"{why}: start it as a service of its own, with Delegate=yes")
        beside.mkdir(exist_ok=True)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (beside / PROCESSES).write_text(str(pid))
    raise NotOurs(f"{own} does not become empty")


def _enable(group: Path, controllers: frozenset[str]) -> None:
    for controller in sorted(controllers):
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _offered(group: Path) -> frozenset[str]:
    try:
        return WANTED & set((group / "cgroup.controllers").read_text().split())
    except OSError:
        return frozenset()


def _own_groups(said: str) -> Iterator[tuple[str, str]]:
    """By controller; version 2's is named by nothing."""
    for line in said.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            yield name, path


def _below(own: str, shown: str) -> str:
    """Where our group is below a mount that shows the hierarchy from `shown` on (a container's)."""
    if shown != "/" and (own == shown or own.startswith(f"{shown}/")):
        own = own[len(shown) :]
    elif shown != "/":
        own = "/"
    return own.lstrip("/")

"""Looks for what runs left behind, removes it, and counts it: there should never be anything.

Owns what a leak is: processes, control groups, mounts, folders and files of runs that are over. Refuses to touch
anything but what bears this sidecar's own folder or its family's name, and what is too young to be judged.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import structlog

from worker.confines.confines import Confines
from worker.confines.processes import command_lines, killed
from worker.workspaces import locks, quota

EVERY_S = 300.0
YOUNG_S = 600.0
"""A folder is there before its run is: only an older one can be said to be nobody's."""
PLACES = ("scratch", "workspaces/runs")
SCRIPTS = "runs"
KINDS = ("processes", "groups", "mounts", "folders", "files")
BWRAP = "bwrap"
_ESCAPED = re.compile(r"\\([0-7]{3})")
_log = structlog.get_logger()


class Janitor:
    """Of one sidecar."""

    def __init__(self, name: str, home: Path, confines: Confines) -> None:
        self._name, self._home, self._confines = name, home, confines
        self.found: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        """All that was ever found, by kind."""

    async def look(self, *, at_start: bool = False) -> Counter[str]:
        """Once. At the start nothing lives yet, so nothing is too young.

        Processes go before mounts, mounts before folders: each may hold the next.
        """
        left: Counter[str] = Counter()
        left.update(await self._groups())
        left["processes"] += len(await asyncio.to_thread(self._processes))
        left["mounts"] = await self._mounts()
        young_s = 0.0 if at_start else YOUNG_S
        for path in self._stale(young_s):
            if await self._gone(path):
                left["files" if path.parent.name == SCRIPTS and path.parent.parent == self._home else "folders"] += 1
        left = +left
        if left:
            self.found += left
            _log.error("runs_left_something", sidecar=self._name, at_start=at_start, **left)
        return left

    async def _groups(self) -> Counter[str]:
        family, left = self._confines.family, Counter[str]()
        if family is None:
            return left
        for group in family.left(run.run for run in self._confines.living()):
            count = await group.end()
            left["groups"] += 1
            left["processes"] += count or 0
        family.forget_empty()
        return left

    def _processes(self) -> list[int]:
        """Sandboxes of this sidecar that no living run has; those without a group of their own show here."""
        living = [f"{run.folder}/" for run in self._confines.living()]
        ended = []
        for pid, words in command_lines():
            ours = Path(words[0]).name == BWRAP and any(word.startswith(f"{self._home}/") for word in words)
            if ours and not any(word.startswith(folder) for folder in living for word in words) and killed(pid, words):
                ended.append(pid)
        return ended

    async def _mounts(self) -> int:
        """In the node's own view; a sandbox's are its own and go with it."""
        count = 0
        for where in reversed(await asyncio.to_thread(self._mounted)):  # the last mounted covers the others
            ended = await asyncio.create_subprocess_exec(
                shutil.which("umount", path=os.defpath) or "umount", "--lazy", "--", where
            )
            if await ended.wait() == 0:
                count += 1
            else:
                _log.error("mount_not_removed", sidecar=self._name, where=where)
        return count

    def _mounted(self) -> list[str]:
        places = [f"{self._home.resolve() / place}/" for place in PLACES]
        living = [f"{run.folder.resolve()}/" for run in self._confines.living()]
        found = []
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            where = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), line.split()[4])
            is_of_a_run = any(where.startswith(place) for place in places)
            if is_of_a_run and not any(where.startswith(folder) for folder in living):
                found.append(where)
        return found

    def _stale(self, young_s: float) -> Iterator[Path]:
        """Folders of runs, and the scripts that start them, of no run that lives."""
        now_s = self._now_s()
        folders = {run.folder for run in self._confines.living()}
        runs = {run.run for run in self._confines.living()}
        for place in (*PLACES, SCRIPTS):
            for path in _entries(self._home / place):
                if path.suffix == ".lock" or path in folders or {path.name, path.stem} & runs:
                    continue
                try:
                    age_s = now_s - path.lstat().st_ctime
                except OSError:
                    continue
                if age_s >= young_s:
                    yield path

    def _now_s(self) -> float:
        """On the clock that files are dated by: the node's own may have been put right meanwhile."""
        mark = self._home / "looked"
        mark.touch()
        return mark.stat().st_ctime

    async def _gone(self, path: Path) -> bool:
        """Not where somebody holds its lock: a living run may be of another making than ours."""
        lock = path.with_name(f"{path.name}.lock")
        if not lock.exists():
            return await quota.removed(path)
        with locks.taken(lock) as descriptor:
            if descriptor is None or not await quota.removed(path):
                return False
            lock.unlink(missing_ok=True)
            return True


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []

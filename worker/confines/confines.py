"""What one run may use of its node, kept by whatever this machine lets the node use.

Owns the choice of the means, what is said about it, and each run's part. A control group limits all of a run
together; where the node may make none, rlimits hold each process, which is less: `Means.weak` says what is missing.
Refuses to start a run's processes: they put themselves in by `Confined.entering`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import structlog

from tasks.errors import Retryable
from worker.confines.groups import Allowance, Family, Group, Met, family, family_name
from worker.confines.hierarchies import NotOurs, found

LOOK_EVERY_S = 0.5
DATA_MIN_BYTES = 2**30
"""Of RLIMIT_DATA: Claude Code 2.1.330 does not start with half of it (measured)."""
GIB = 2**30
ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"'
"""For /bin/sh: into every group, then become the program. One that cannot be entered starts nothing."""
_MEMORY, _PIDS, _CPU = "memory", "pids", "cpu"
_log = structlog.get_logger()


class MemorySpent(Retryable):
    """A run used all the memory that it may, and the kernel ended part of it."""

    code = "run_memory_spent"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"the run was ended: it used all of its memory, {_size(limit_bytes)}; give it a smaller task, or raise "
            "memory_bytes of the sidecar in the servers file"
        )


class ProcessesSpent(Retryable):
    """A run had all the processes that it may, and its agent could not go on without another."""

    code = "run_processes_spent"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the run ended: it had all of its {limit} processes and threads, and its agent broke for want of another; "
            "give it a task that starts fewer, or raise processes of the sidecar in the servers file"
        )


class NoGroup(Retryable):
    """No control group can be made for a run just now."""

    code = "no_control_group"

    def __init__(self, why: str) -> None:
        super().__init__(f"the run was not begun, because its limits could not be set: {why}")


@dataclass(frozen=True, slots=True)
class Means:
    """How limits are kept on this node, for people."""

    said: str
    weak: str | None = None
    """What is not kept, and why; None where all is."""

    def text(self) -> str:
        """Both, in one line."""
        return self.said if self.weak is None else f"{self.said}; NOT KEPT: {self.weak}"


class Confined:
    """One run's part."""

    def __init__(self, group: Group | None, entering: tuple[str, ...], allowance: Allowance) -> None:
        self._group, self.entering, self._allowance = group, entering, allowance

    def met(self) -> Met:
        """What the kernel did to it until now."""
        return Met() if self._group is None else self._group.met()

    def memory_spent(self) -> MemorySpent | None:
        """Whether part of it was ended for want of memory."""
        return MemorySpent(self._allowance.memory_bytes or 0) if self.met().killed else None

    def processes_spent(self) -> ProcessesSpent | None:
        """Whether it was refused a process or thread, which by itself ends nothing."""
        return ProcessesSpent(self._allowance.processes or 0) if self.met().forks_refused else None

    async def watch(self) -> NoReturn:
        """Ends only by raising MemorySpent."""
        while True:
            spent = self.memory_spent()
            if spent is not None:
                raise spent
            await asyncio.sleep(LOOK_EVERY_S)


@dataclass(frozen=True, slots=True)
class Living:
    """A run that is not over: nobody tidies up behind it."""

    run: str
    folder: Path


class Confines:
    """Of one sidecar's runs."""

    def __init__(self, name: str, folder: Path, allowance: Allowance, *, mountinfo: str, own: str) -> None:
        """`folder` names the family of groups; `mountinfo`, `own`: of /proc/self, the latter its cgroup."""
        self._name, self._folder, self._allowance = name, folder, allowance
        self._mountinfo, self._own = mountinfo, own
        self._living: dict[str, Living] = {}
        self.family: Family | None = None
        self._rlimits: tuple[str, ...] = ()
        self.means = Means("not started")

    def start(self) -> None:
        """Find the means, and say once what they cannot do."""
        self.family, why = family(found(self._mountinfo, self._own), family_name(self._folder))
        self._rlimits = rlimits(self._missing(), os.geteuid())
        self.means = self._chosen(why)
        if self.means.weak is None:
            _log.info("runs_are_limited", sidecar=self._name, by=self.means.said)
        else:
            _log.error("runs_are_not_fully_limited", sidecar=self._name, by=self.means.said, missing=self.means.weak)

    def close(self) -> None:
        """The groups' own folder goes with the node."""
        if self.family is not None:
            self.family.close()

    def living(self) -> tuple[Living, ...]:
        """Now."""
        return tuple(self._living.values())

    @contextlib.asynccontextmanager
    async def around(self, run: str, folder: Path) -> AsyncIterator[Confined]:
        """One run; whatever of it is still there at the end is ended.

        Raises:
            NoGroup: the kernel makes none now, though it did at the start.
        """
        self._living[run] = Living(run, folder)
        group = None
        try:
            group = self._group(run)
            yield Confined(group, self._entering(group), self._allowance)
        finally:
            try:
                if group is not None:
                    await self._ended(run, group)
            finally:
                self._living.pop(run, None)
                with contextlib.suppress(OSError):
                    os.utime(folder)  # to the janitor it is a young one again: it is being removed just now

    def _group(self, run: str) -> Group | None:
        """Never none where there were some at the start: a run without its limits is not begun."""
        try:
            return None if self.family is None else self.family.make(run, self._allowance)
        except (OSError, NotOurs) as error:
            raise NoGroup(str(error)) from error

    async def _ended(self, run: str, group: Group) -> None:
        met = group.met()
        if met.forks_refused:
            _log.warning("run_hit_its_process_limit", run=run, limit=self._allowance.processes)
        if await group.end() is None:
            _log.error("run_did_not_go", run=run, processes=sorted(group.processes()), effect="it is looked for again")

    def _entering(self, group: Group | None) -> tuple[str, ...]:
        into = () if group is None else ("/bin/sh", "-c", ENTER, "enter", *group.entrances, "--")
        return (*into, *self._rlimits)

    def _missing(self) -> Allowance:
        """What no group limits."""
        kept = frozenset() if self.family is None else self.family.controllers
        ours = self._allowance
        return Allowance(
            memory_bytes=None if _MEMORY in kept else ours.memory_bytes,
            cpus=None if _CPU in kept else ours.cpus,
            processes=None if _PIDS in kept else ours.processes,
        )

    def _chosen(self, why: tuple[str, ...]) -> Means:
        ours, missing = self._allowance, self._missing()
        kept = [
            said
            for limit, lacks, said in (
                (ours.memory_bytes, missing.memory_bytes, _size(ours.memory_bytes or 0)),
                (ours.processes, missing.processes, f"{ours.processes} processes"),
                (ours.cpus, missing.cpus, f"{ours.cpus} CPUs"),
            )
            if limit is not None and lacks is None
        ]
        version = "" if self.family is None else f"control groups, version {self.family.version}"
        said = [f"{', '.join(kept) or 'no limit'} for a run ({version})"] if version else []
        if self._rlimits:
            said.append(
                f"rlimits: {' '.join(word for word in self._rlimits if word.startswith('--') and word != '--')}"
            )
        lacks = _lacks(missing, has_rlimits=bool(self._rlimits), uid=os.geteuid())
        because = "; ".join(why) or "no control group was found"
        weak = f"{'; '.join(lacks)}. Why: {because}. Start the node with Delegate=cpu memory pids" if lacks else None
        return Means("; ".join(said) or "nothing", weak)


def rlimits(missing: Allowance, uid: int) -> tuple[str, ...]:
    """Words before the program; none where nothing can be kept so.

    RLIMIT_DATA holds for each process by itself. RLIMIT_AS would also count what is only reserved: WebAssembly in
    Node.js wants gigabytes of it and breaks at 4 GiB (measured). RLIMIT_NPROC counts all threads of the user who runs
    the node, and the kernel does not keep it for root. Source: getrlimit(2); Linux 6.18.
    """
    prlimit = shutil.which("prlimit", path=os.defpath)
    words = []
    if missing.memory_bytes is not None:
        limit = max(DATA_MIN_BYTES, missing.memory_bytes)
        words.append(f"--data={limit}:{limit}")
    if missing.processes is not None and uid != 0:
        words.append(f"--nproc={missing.processes}:{missing.processes}")
    return (prlimit, *words, "--") if words and prlimit is not None else ()


def _lacks(missing: Allowance, *, has_rlimits: bool, uid: int) -> list[str]:
    lacks = []
    if missing.memory_bytes is not None:
        lacks.append("memory is limited for each process only" if has_rlimits else "memory is not limited")
    if missing.processes is not None:
        by_user = has_rlimits and uid != 0
        lacks.append("processes are limited for the node's user only" if by_user else "processes are not limited")
    if missing.cpus is not None:
        lacks.append("CPU is not limited")
    return lacks


def _size(count: int) -> str:
    return f"{count / GIB:g} GiB" if count >= GIB else f"{count / 2**20:g} MiB"

"""One run's own files: a clone that borrows a mirror's objects, a branch, a HOME, and the host's own records.

Owns the folder of runs, and the lock by which a run holds its own; a crash frees it, and `sweep` removes what
it left. Refuses to run anything of the repository: no hooks, no filters, no submodules.

    runs/<run>.lock      held by flock while the run lives
    runs/<run>/work      the clone: the agent's, all of it, `.git` too
    runs/<run>/home      the agent's HOME
    runs/<run>/host.git  never shown to the agent; results.py works with it
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from worker.workspaces import locks, quota
from worker.workspaces.errors import DiskFull, WorkspaceInUse
from worker.workspaces.git import Allowed, Git, Repository
from worker.workspaces.mirrors import Held
from worker.workspaces.names import Project, checked_run

GITLINK = b"160000"
"""The mode of a submodule in a tree."""
ATTRIBUTES = "* !filter !diff !ident !working-tree-encoding\n"
"""In the clone and on the host, over all that `.gitattributes` says: no filter, differ or encoder is asked, so a
file is the same bytes in the repository, in the clone and in the patch. Ends of lines are kept as git keeps them."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Clone:
    """Where one run's files are."""

    run: str
    folder: Path
    base: str
    branch: str
    mirror: Path
    submodules: tuple[str, ...]
    """Folders of the repository that are other repositories: they are empty here."""

    @property
    def work(self) -> Path:
        """The agent's files."""
        return self.folder / "work"

    @property
    def home(self) -> Path:
        """The agent's HOME."""
        return self.folder / "home"

    @property
    def host(self) -> Path:
        """A repository of the host's own that looks at the agent's files."""
        return self.folder / "host.git"


class Clones:
    """All of a node's."""

    def __init__(self, root: Path, git: Git) -> None:
        self._root, self._git = root, git

    @contextlib.asynccontextmanager
    async def made(self, project: Project, held: Held, run: str) -> AsyncIterator[Clone]:
        """The run's files; they are removed at the end.

        Raises:
            InvalidRef: the run's name cannot name a folder.
            WorkspaceInUse: a run of this name lives.
            DiskFull: there is no room.
        """
        folder = self._root / checked_run(run)
        with locks.taken(lock := _lock_of(folder)) as descriptor:
            if descriptor is None:
                raise WorkspaceInUse(run)
            try:
                await quota.removed(folder)  # of a run that crashed
                try:
                    clone = await self._make(folder, project, held, descriptor)
                except OSError as error:
                    raise _as_ours(error) from error
                yield clone
            finally:
                if await quota.removed(folder):
                    lock.unlink(missing_ok=True)
                else:
                    _log.error("workspace_not_removed", run=run, effect="it is tried again when others age out")

    async def sweep(self) -> int:
        """Remove what runs left that are over, however they ended; how many."""
        count = 0
        for name in {path.name.removesuffix(".lock") for path in self._root.iterdir()}:
            folder = self._root / name
            with locks.taken(lock := _lock_of(folder)) as descriptor:
                if descriptor is not None and await quota.removed(folder):
                    lock.unlink(missing_ok=True)
                    count += 1
        return count

    async def _make(self, folder: Path, project: Project, held: Held, lock: int) -> Clone:
        branch = f"agent/{folder.name}"
        for part in (folder, folder / "home"):
            part.mkdir(mode=0o700)
        work, allowed = folder / "work", Allowed(locks=(lock,))
        await self._git.run(
            *("clone", "--quiet", "--shared", "--no-checkout", "--template=", "--no-recurse-submodules"),
            *("--config", "user.name=agent", "--config", "user.email=agent@localhost"),
            *("--", str(held.folder), str(work)),
            allowed=allowed,
        )
        clone = Repository(work / ".git", work)
        _write(work / ".git/info/attributes", ATTRIBUTES)
        await self._git.run("checkout", "--quiet", "-b", branch, held.base, "--", at=clone, allowed=allowed)
        await self._git.run("config", "remote.origin.url", project.remote.url, at=clone)
        tracked = await self._git.run("ls-files", "-s", "-z", at=clone)
        await self._host(folder / "host.git", work, held.folder)
        submodules = tuple(_path(line) for line in tracked.split(b"\0") if line.startswith(GITLINK))
        if submodules:
            _log.warning("submodules_not_followed", project=project.name, paths=submodules[:10])
        return Clone(folder.name, folder, held.base, branch, held.folder, submodules)

    async def _host(self, host: Path, work: Path, mirror: Path) -> None:
        """Made while all is still ours: later nothing in `work` is believed."""
        await self._git.run("init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--", str(host))
        _write(host / "info/attributes", ATTRIBUTES)
        _write(host / "objects/info/alternates", f"{mirror / 'objects'}\n")
        shutil.copyfile(work / ".git/index", host / "index")


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _path(line: bytes) -> str:
    return line.partition(b"\t")[2].decode(errors="replace")


def _as_ours(error: OSError) -> Exception:
    return DiskFull(str(error)) if error.errno in quota.NO_ROOM else error

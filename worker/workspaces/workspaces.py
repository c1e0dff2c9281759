"""Project workspaces: what a run of an agent works in, and how its work comes back.

Owns the order of it all: room, mirror, clone, results, removal. Refuses to start an agent.
See docs/adr/0013-agents.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import structlog

from tasks.clock import Clock
from worker.workspaces import quota
from worker.workspaces.clones import Clone, Clones
from worker.workspaces.errors import DiskFull, WorkspaceTooLarge
from worker.workspaces.git import Git
from worker.workspaces.mirrors import Mirrors
from worker.workspaces.names import Project
from worker.workspaces.quota import WorkspaceLimits
from worker.workspaces.restore import restore
from worker.workspaces.results import Patch, Pushed, Results

_log = structlog.get_logger()


class Workspace:
    """One run's files, from `Workspaces.open` until it is closed."""

    def __init__(self, project: Project, clone: Clone, git: Git, limits: WorkspaceLimits) -> None:
        self._project, self._clone, self._git, self._limits = project, clone, git, limits
        self._results = Results(clone, git)

    @property
    def path(self) -> Path:
        """The agent's working directory: a clone with its branch checked out."""
        return self._clone.work

    @property
    def home(self) -> Path:
        """The agent's HOME."""
        return self._clone.home

    @property
    def base(self) -> str:
        """The commit that it began from."""
        return self._clone.base

    @property
    def branch(self) -> str:
        """`agent/<run>`."""
        return self._clone.branch

    @property
    def submodules(self) -> tuple[str, ...]:
        """Folders that are empty, because submodules are not followed: to be said with the result."""
        return self._clone.submodules

    @property
    def read_only(self) -> Mapping[Path, str]:
        """What the sandbox must show beside `path` and `home`, at the same place: the objects it borrows."""
        objects = self._clone.mirror / "objects"
        return {objects: str(objects)}

    async def patch(self, limit_bytes: int) -> Patch:
        """See `Results.patch`. Raises WorkspaceTooLarge too."""
        await self.check_size()
        return await self._results.patch(limit_bytes)

    async def patch_alive(self, limit_bytes: int) -> Patch:
        """See `Results.patch_alive`. Raises WorkspaceTooLarge too."""
        await self.check_size()
        return await self._results.patch_alive(limit_bytes)

    async def restore(self, patch: bytes) -> None:
        """See `restore.py`. Raises PatchUnfit and WorkspaceTooLarge."""
        await restore(self._clone, patch, self._git)
        await self.check_size()

    async def push(self, branch: str | None = None, message: str | None = None) -> Pushed | None:
        """See `Results.push`; `agent/<run>` where no branch is named. Raises WorkspaceTooLarge too."""
        await self.check_size()
        said = message or f"Work of run {self._clone.run}\n"
        return await self._results.push(self._project.remote, branch, said, self._limits.push_s)

    async def artifact(self, path: str, limit_bytes: int) -> bytes:
        """See `Results.artifact`."""
        return await self._results.artifact(path, limit_bytes)

    async def used_bytes(self) -> int:
        """What it takes on the disk now."""
        return await quota.used_bytes(self._clone.folder)

    async def check_size(self) -> None:
        """Raise WorkspaceTooLarge or DiskFull, or nothing."""
        quota.check_free(self._clone.folder, self._limits)
        used = await self.used_bytes()
        if used > self._limits.workspace_bytes:
            raise WorkspaceTooLarge(self._clone.run, used, self._limits.workspace_bytes)

    async def watch(self) -> None:
        """Look at its size for as long as somebody waits; ends only by raising, as `check_size` does.

        Whoever runs the agent waits for both, and ends the agent when this ends first.
        """
        while True:
            await self.check_size()
            await asyncio.sleep(self._limits.look_every_s)


class Workspaces:
    """All of a node's, below one folder of its own."""

    def __init__(
        self, root: Path, limits: WorkspaceLimits, clock: Clock, *, environ: Mapping[str, str] | None = None
    ) -> None:
        """`environ`: see `Git`. Raises SettingsError: git is not installed."""
        self._root, self._limits = root, limits
        self._mirrors_root, self._runs_root, home = root / "mirrors", root / "runs", root / "git-home"
        for folder in (root, self._mirrors_root, self._runs_root, home):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._git = Git(home, environ=environ)
        self._mirrors = Mirrors(self._mirrors_root, self._git, limits, clock)
        self._clones = Clones(self._runs_root, self._git)

    async def start(self) -> None:
        """Remove what a crash left. A clone that a living process holds stays."""
        await self._mirrors.sweep()
        if swept := await self._clones.sweep():
            _log.warning("workspaces_swept", count=swept, why="their runs ended without removing them")

    @contextlib.asynccontextmanager
    async def open(self, project: Project, ref: str | None, run: str) -> AsyncIterator[Workspace]:
        """A workspace for one run, from `ref` (None: the remote's default branch); removed at the end.

        Raises:
            FleetError: one of `worker/workspaces/errors.py`; Retryable ones need nobody's doing.
        """
        await self._make_room()
        async with self._mirrors.borrowed(project, ref) as held, self._clones.made(project, held, run) as clone:
            yield Workspace(project, clone, self._git, self._limits)

    async def age_out(self) -> None:
        """Remove mirrors that nobody has used for long, and forgotten clones. To be called now and then."""
        await self._clones.sweep()
        await self._mirrors.age_out(self._limits.idle_s)

    def warm(self) -> frozenset[str]:
        """Projects whose mirror is here."""
        return self._mirrors.warm()

    async def _make_room(self) -> None:
        """Idle mirrors go before a run is refused."""
        if await self._fits():
            return
        await self._mirrors.age_out(0.0, self._fits)
        if not await self._fits():
            used = await quota.used_bytes(self._root)
            raise DiskFull(f"{self._root} has {used} bytes of at most {self._limits.total_bytes}")

    async def _fits(self) -> bool:
        return (
            quota.left_bytes(self._root) >= self._limits.reserve_bytes
            and await quota.used_bytes(self._root) < self._limits.total_bytes
        )

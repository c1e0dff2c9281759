"""Where a run works, and what comes back of it: a clone of its project, or two empty folders.

Owns the choice between the two and the form of what comes back. Refuses to know how a clone is made.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tasks.clock import Clock
from tasks.errors import FleetError, Retryable
from worker.sidecars.reach import Reach, reaching
from worker.workspaces import quota
from worker.workspaces.errors import WorkspaceTooLarge
from worker.workspaces.names import Project
from worker.workspaces.quota import WorkspaceLimits
from worker.workspaces.scratch import Scratch, ScratchPlaces
from worker.workspaces.workspaces import Workspace, Workspaces

PATCH_MAX_BYTES = 4_000_000
REACH = "reach.sock"


class ProjectUnknown(Retryable):
    """This node was told nothing of the project; another may know it."""

    code = "project_unknown"

    def __init__(self, project: str) -> None:
        super().__init__(
            f"this node knows no project {project!r}: name its repository, and the tenant that "
            "it belongs to, under mcpfleet.projects in the servers file"
        )


@dataclass(frozen=True, slots=True)
class Change:
    """The project's files as they are now, against what they began from."""

    base: str | None = None
    branch: str | None = None
    patch: bytes = field(default=b"", repr=False)


class Place(Protocol):
    """A run's own folders."""

    @property
    def workspace(self) -> Path:
        """Its files."""
        ...

    @property
    def home(self) -> Path:
        """Its HOME."""
        ...

    @property
    def read_only(self) -> Mapping[Path, str]:
        """What else it may read, and where that is inside."""
        ...

    @property
    def reach(self) -> Path | None:
        """The unix socket that leads to what the project lists; None where it lists nothing."""
        ...

    async def watch(self) -> None:
        """Ends only by raising: it takes more room than it may."""
        ...

    async def results(self, *, push: bool) -> dict[str, Any]:
        """What it did to the project's files. Once it is still."""
        ...

    async def change(self, limit_bytes: int) -> Change:
        """The same for a capsule, while the agent waits for its model."""
        ...

    async def restore(self, patch: bytes) -> None:
        """The files as a capsule has them, before the agent begins."""
        ...


class Places:
    """Of one sidecar."""

    def __init__(self, folder: Path, limits: WorkspaceLimits, projects: Mapping[str, Project], clock: Clock) -> None:
        self._folder, self._limits, self._projects, self._clock = folder, limits, projects, clock
        self._scratch = ScratchPlaces(folder / "scratch")
        self._workspaces: Workspaces | None = None

    async def start(self) -> None:
        """Remove what a crash left.

        Raises:
            SettingsError: there are projects, and no git.
        """
        await self._scratch.start()
        if self._projects:
            self._workspaces = Workspaces(self._folder / "workspaces", self._limits, self._clock)
            await self._workspaces.start()

    async def tidy(self) -> None:
        """Remove what nobody has used for long. To be called now and then."""
        if self._workspaces is not None:
            await self._workspaces.age_out()

    def servers(self, project: str | None, tenant: str) -> tuple[str, ...]:
        """The node's MCP servers that a project lends to its runs."""
        known = self._projects.get(project) if project is not None else None
        return () if known is None or known.tenant != tenant else known.servers

    def mirrored(self) -> tuple[str, ...]:
        """Projects whose mirror is here, by name; looks at the disk."""
        return () if self._workspaces is None else tuple(sorted(self._workspaces.warm()))

    @contextlib.asynccontextmanager
    async def open(self, run: str, project: str | None, ref: str | None, tenant: str) -> AsyncIterator[Place]:
        """For one run; all of it is gone afterwards.

        Raises:
            FleetError: see `worker/workspaces/errors.py`, and ProjectUnknown.
        """
        if project is None:
            async with self._scratch.open() as scratch:
                yield _Empty(scratch, self._limits)
            return
        known = self._projects.get(project)
        if self._workspaces is None or known is None or known.tenant != tenant:
            raise ProjectUnknown(project)  # another tenant's does not exist
        async with self._workspaces.open(known, ref, run) as workspace:
            at = workspace.path.parent / REACH
            async with reaching(at, run, known) as reach:
                yield _Clone(workspace, None if reach is None else (at, reach))


class _Empty:
    """Nobody's files."""

    def __init__(self, scratch: Scratch, limits: WorkspaceLimits) -> None:
        self._folder, self._limits = scratch.folder, limits
        self.workspace, self.home = scratch.workspace, scratch.home
        self.read_only: Mapping[Path, str] = {}
        self.reach: Path | None = None

    async def watch(self) -> None:
        """As a project's is."""
        while True:
            quota.check_free(self._folder, self._limits)
            used = await quota.used_bytes(self._folder)
            if used > self._limits.workspace_bytes:
                raise WorkspaceTooLarge(self._folder.name, used, self._limits.workspace_bytes)
            await asyncio.sleep(self._limits.look_every_s)

    async def results(self, *, push: bool) -> dict[str, Any]:
        """Nothing is kept."""
        del push
        return {}

    async def change(self, limit_bytes: int) -> Change:
        """Nor saved."""
        del limit_bytes
        return Change()

    async def restore(self, patch: bytes) -> None:
        """Nothing to put there."""
        del patch


class _Clone:
    """A project's files, on a branch of the run's own."""

    def __init__(self, workspace: Workspace, reach: tuple[Path, Reach] | None) -> None:
        self._workspace = workspace
        self.workspace, self.home, self.read_only = workspace.path, workspace.home, workspace.read_only
        self.reach: Path | None = None if reach is None else reach[0]
        self._reach = None if reach is None else reach[1]

    async def watch(self) -> None:
        """See `Workspace.watch`."""
        await self._workspace.watch()

    async def results(self, *, push: bool) -> dict[str, Any]:
        """`base`, `files`, `patch` (or `patch_base64`), and `branch` and `commit` where it was pushed.

        With what it reached, if its project lists anything: the run is over, so its tunnels are.
        """
        said: dict[str, Any] = {}
        if self._reach is not None:
            await self._reach.close()
            said |= self._reach.told()
        patch = await self._workspace.patch(PATCH_MAX_BYTES)
        said |= {"base": patch.base, "files": patch.files}
        try:
            said["patch"] = patch.data.decode()
        except UnicodeDecodeError:
            said["patch_base64"] = base64.b64encode(patch.data).decode()
        for name, value in (
            ("links_out", patch.links_out),
            ("nested", patch.nested),
            ("submodules", self._workspace.submodules),
        ):
            if value:
                said[name] = list(value)
        if push:
            said |= await self._pushed()
        return said

    async def change(self, limit_bytes: int) -> Change:
        """Raises PatchTooLarge, and what git can."""
        patch = await self._workspace.patch_alive(limit_bytes)
        return Change(patch.base, self._workspace.branch, patch.data)

    async def restore(self, patch: bytes) -> None:
        """See `Workspace.restore`."""
        await self._workspace.restore(patch)

    async def _pushed(self) -> dict[str, Any]:
        """A push that fails costs nobody the patch."""
        try:
            pushed = await self._workspace.push()
        except FleetError as error:
            return {"push_error": {"code": error.code, "message": error.message}}
        return {} if pushed is None else {"branch": pushed.branch, "commit": pushed.commit}

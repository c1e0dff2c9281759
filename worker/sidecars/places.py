"""Where a run works, and what comes back of it: a clone of its project, or two empty folders.

Owns the choice between the two and the form of what comes back. Refuses to know how a clone is made.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tasks.errors import Retryable
from worker.workspaces.names import Project
from worker.workspaces.scratch import Scratch, ScratchPlaces
from worker.workspaces.workspaces import Workspace, Workspaces

PATCH_MAX_BYTES = 4_000_000


class ProjectUnknown(Retryable):
    """This node was told nothing of the project; another may know it."""

    code = "project_unknown"

    def __init__(self, project: str) -> None:
        super().__init__(
            f"this node knows no project {project!r}: name its repository under mcpfleet.projects in the servers file"
        )


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

    async def watch(self) -> None:
        """Ends only by raising: it takes more room than it may."""
        ...

    async def results(self, *, push: bool) -> dict[str, Any]:
        """What it did to the project's files. Once it is still."""
        ...


class Places:
    """Of one sidecar."""

    def __init__(self, workspaces: Workspaces, scratch: ScratchPlaces, projects: Mapping[str, Project]) -> None:
        self._workspaces, self._scratch, self._projects = workspaces, scratch, projects

    async def start(self) -> None:
        """Remove what a crash left."""
        await self._workspaces.start()

    @contextlib.asynccontextmanager
    async def open(self, run: str, project: str | None, ref: str | None) -> AsyncIterator[Place]:
        """For one run; all of it is gone afterwards.

        Raises:
            FleetError: see `worker/workspaces/errors.py`, and ProjectUnknown.
        """
        if project is None:
            async with self._scratch.open() as scratch:
                yield _Empty(scratch)
            return
        if project not in self._projects:
            raise ProjectUnknown(project)
        async with self._workspaces.open(self._projects[project], ref, run) as workspace:
            yield _Clone(workspace)


class _Empty:
    """Nobody's files."""

    def __init__(self, scratch: Scratch) -> None:
        self.workspace, self.home = scratch.workspace, scratch.home
        self.read_only: Mapping[Path, str] = {}

    async def watch(self) -> None:
        """Nothing measures it: its disk is the node's temporary one."""

    async def results(self, *, push: bool) -> dict[str, Any]:
        """Nothing is kept."""
        del push
        return {}


class _Clone:
    """A project's files, on a branch of the run's own."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.workspace, self.home, self.read_only = workspace.path, workspace.home, workspace.read_only

    async def watch(self) -> None:
        """See `Workspace.watch`."""
        await self._workspace.watch()

    async def results(self, *, push: bool) -> dict[str, Any]:
        """`base`, `files`, `patch` (or `patch_base64`), and `branch` and `commit` where it was pushed."""
        patch = await self._workspace.patch(PATCH_MAX_BYTES)
        said: dict[str, Any] = {"base": patch.base, "files": patch.files}
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
        pushed = await self._workspace.push() if push else None
        if pushed is not None:
            said |= {"branch": pushed.branch, "commit": pushed.commit}
        return said

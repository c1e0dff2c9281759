"""An empty workspace and a HOME for a run without a project's files; both are gone after it."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from worker.workspaces import quota

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Scratch:
    """Two empty folders."""

    folder: Path
    workspace: Path
    home: Path


class ScratchPlaces:
    """Below one folder of this node."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def start(self) -> None:
        """Remove what a killed node left."""
        await quota.removed(self._folder)
        await asyncio.to_thread(self._folder.mkdir, parents=True, mode=0o700)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Scratch]:
        """For one run."""
        place = Path(tempfile.mkdtemp(dir=self._folder))
        made = Scratch(place, place / "workspace", place / "home")
        for folder in (made.workspace, made.home):
            await asyncio.to_thread(folder.mkdir)
        try:
            yield made
        finally:
            if not await quota.removed(place):
                _log.error("scratch_not_removed", folder=str(place), effect="removed when the node starts again")

"""An empty workspace and a HOME for a run without a project's files; both are gone after it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Scratch:
    """Two empty folders."""

    workspace: Path
    home: Path


class ScratchPlaces:
    """Below one folder of this node; what a killed node left there is removed at its next start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Scratch]:
        """For one run."""
        place = Path(tempfile.mkdtemp(dir=self._folder))
        made = Scratch(place / "workspace", place / "home")
        try:
            made.workspace.mkdir()
            made.home.mkdir()
            yield made
        finally:
            shutil.rmtree(place, ignore_errors=True)

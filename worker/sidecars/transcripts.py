"""Sessions of Claude Code, kept between runs: one file each, by project.

Every run has a HOME of its own, so that no run reads another's; what it needs to go on is put there first
and taken out at the end. Refuses to read them. Source: `~/.claude/projects/<working directory>/<id>.jsonl`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

SESSION_PATTERN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FOLDER = Path(".claude", "projects", "-workspace")


class Transcripts:
    """Below one folder of this node."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, session: str, home: Path, project: str | None) -> bool:
        """Into a run's HOME. False: there is no such session of this project here."""
        if not SESSION_PATTERN.fullmatch(session):
            return False
        kept = self._of(project) / f"{session}.jsonl"
        if not kept.is_file():
            return False
        target = home / _FOLDER
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept, target / kept.name)
        return True

    def keep(self, session: str, home: Path, project: str | None) -> None:
        """Out of a run's HOME; a link is left there, because the agent may have made it."""
        written = home / _FOLDER / f"{session}.jsonl"
        if not SESSION_PATTERN.fullmatch(session) or written.is_symlink() or not written.is_file():
            return
        folder = self._of(project)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{session}"
        shutil.copyfile(written, partial, follow_symlinks=False)
        partial.rename(folder / written.name)

    def _of(self, project: str | None) -> Path:
        return self._folder / (f"p-{project}" if project is not None else "none")

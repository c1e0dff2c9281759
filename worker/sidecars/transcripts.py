"""Sessions, kept between runs: one file each, by project.

Every run has a HOME of its own, so that no run reads another's; what a session needs to go on is put there
first and taken out when nothing of the run lives any more. Refuses to believe what the agent left: no link is
followed, and only the session that a run was given, or a new one, is written.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from worker.sidecars.sidecar import AgentTask, kept_under
from worker.workspaces.tree import NotThere, Tree

SESSION_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
SESSION_MAX_BYTES = 64_000_000


class Transcripts:
    """Below one folder of this node. `inside` is where a runtime has its file, with `{}` for the session's id."""

    def __init__(self, folder: Path, inside: str) -> None:
        self._folder, self._inside = folder, inside

    def put(self, session: str, task: AgentTask) -> bool:
        """Into a run's HOME. False: there is no such session of this project here."""
        if not SESSION_PATTERN.fullmatch(session):
            return False
        text = Tree(self._of(task), most_bytes=SESSION_MAX_BYTES).read(session)
        return not isinstance(text, NotThere) and self.place(session, text, task)

    def place(self, session: str, text: str, task: AgentTask) -> bool:
        """Into a run's HOME, brought from another node."""
        if not SESSION_PATTERN.fullmatch(session):
            return False
        return Tree(task.home, most_bytes=SESSION_MAX_BYTES).write(self._inside.format(session), text) is None

    def now(self, session: str, task: AgentTask) -> str | None:
        """As it is while the run lives; None where there is none yet."""
        if not SESSION_PATTERN.fullmatch(session):
            return None
        text = Tree(task.home, most_bytes=SESSION_MAX_BYTES).read(self._inside.format(session))
        return None if isinstance(text, NotThere) else text

    def keep(self, session: str, task: AgentTask) -> None:
        """Out of a run's HOME, once the run is over."""
        folder = self._of(task)
        is_its_own = session == task.session.id or not (folder / session).exists()
        if not SESSION_PATTERN.fullmatch(session) or not is_its_own:
            return
        text = self.now(session, task)
        if text is None:
            return
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, delete=False) as partial:
            partial.write(text)
        Path(partial.name).rename(folder / session)

    def _of(self, task: AgentTask) -> Path:
        return self._folder / kept_under(task)

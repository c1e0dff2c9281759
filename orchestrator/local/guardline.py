"""The parent's end of the pipe to the guard (`guard.py`)."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
from pathlib import Path

from orchestrator.local import guard

FAREWELL_S = 5.0


class GuardLine:
    """Tells the guard what would have to be ended and removed if we died now."""

    def __init__(self) -> None:
        # Isolated and without site: the guard starts fast, stays small, and no stray module is imported.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={},
            text=True,
        )
        self._mark = secrets.token_hex(16)
        self._say({"say": "mark", "mark": self._mark})

    @property
    def mark(self) -> dict[str, str]:
        """For the environment of every child."""
        return {guard.MARK: self._mark}

    @property
    def pid(self) -> int:
        """Of the guard itself."""
        return self._process.pid

    def started(self, group: int, grace_s: float) -> None:
        """A child leads this process group; it deserves `grace_s` seconds to end."""
        self._say({"say": "started", "group": group, "grace_s": grace_s})

    def ended(self, group: int) -> None:
        """It is gone; its number may belong to somebody else soon."""
        self._say({"say": "ended", "group": group})

    def remove(self, path: Path) -> None:
        """Remove this file or directory at the end."""
        self._say({"say": "remove", "path": str(path)})

    def dismiss(self) -> None:
        """Everything was ended in order."""
        self._say({"say": guard.FAREWELL})
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(FAREWELL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, words: dict[str, object]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()

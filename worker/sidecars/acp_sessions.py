"""Sessions of agents that keep them in files of their own form: copies of those files between runs, by project.

As `transcripts.py` for whatever a runtime writes: a database, a folder. Put into a run's HOME before it begins and
taken out when nothing of it lives any more, so nobody changes what is read. Refuses to believe what the agent
left: no link is followed, only regular files are copied, their number and bytes are bounded.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import structlog

from worker.sidecars.sidecar import AgentTask, kept_under
from worker.sidecars.transcripts import SESSION_PATTERN

BYTES_MAX = 256_000_000
FILES_MAX = 5_000
DEPTH_MAX = 32
CHUNK_BYTES = 1_000_000
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_log = structlog.get_logger()


class SessionFiles:
    """Below one folder of this node. `paths` are where the agent has them in HOME, `{session}` is the id's place."""

    def __init__(self, folder: Path, paths: tuple[str, ...]) -> None:
        self._folder, self._paths = folder, paths

    @property
    def is_kept(self) -> bool:
        """Whether any session is."""
        return bool(self._paths)

    def put(self, session: str, task: AgentTask) -> bool:
        """Into a run's HOME. False: there is no such session of this project here."""
        kept = self._of(task) / session
        if not SESSION_PATTERN.fullmatch(session) or not kept.is_dir():
            return False
        shutil.copytree(kept, task.home, dirs_exist_ok=True)
        return True

    def keep(self, session: str, task: AgentTask) -> bool:
        """Out of a run's HOME, once the run is over. False: it was not, and cannot go on."""
        folder = self._of(task)
        is_its_own = session == task.session.id or not (folder / session).exists()
        if not self._paths or not SESSION_PATTERN.fullmatch(session) or not is_its_own:
            return False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = Path(tempfile.mkdtemp(dir=folder, prefix=".part-"))
        try:
            copied = _Copied()
            for path in self._paths:
                copied.copy(task.home, path.replace("{session}", session), part)
        except (OSError, _TooMuch) as error:
            _log.warning("session_not_kept", session=session, why=str(error))
            shutil.rmtree(part, ignore_errors=True)
            return False
        if not copied.files:
            part.rmdir()
            return False
        _replace(part, folder / session)
        return True

    def _of(self, task: AgentTask) -> Path:
        return self._folder / kept_under(task)


class _TooMuch(Exception):
    """Inside this module only."""


class _Copied:
    """How much, until now."""

    def __init__(self) -> None:
        self.files = self._bytes = 0

    def copy(self, home: Path, path: str, to: Path) -> None:
        """One path of HOME, a file or a folder; nothing where it is not, or is behind a link."""
        at = home
        for name in Path(path).parts:
            at = at / name
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if stat.S_ISLNK(at.lstat().st_mode):
                    return
        for found in _files(at, DEPTH_MAX):
            self._one(found, to / found.relative_to(home))

    def _one(self, source: Path, to: Path) -> None:
        self.files += 1
        if self.files > FILES_MAX:
            raise _TooMuch(f"it has more than {FILES_MAX} files")
        to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(source, _READ), "rb") as reading, to.open("xb") as writing:
            while chunk := reading.read(CHUNK_BYTES):
                self._bytes += len(chunk)
                if self._bytes > BYTES_MAX:
                    raise _TooMuch(f"it has more than {BYTES_MAX} bytes")
                writing.write(chunk)


def _files(at: Path, depth: int) -> Iterator[Path]:
    """Regular ones at and below."""
    try:
        mode = at.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISREG(mode):
        yield at
    elif stat.S_ISDIR(mode):
        if depth == 0:
            raise _TooMuch(f"its folders are more than {DEPTH_MAX} deep")
        for entry in sorted(at.iterdir()):
            yield from _files(entry, depth - 1)


def _replace(part: Path, to: Path) -> None:
    """A folder by another: the old one is there until the new one is whole."""
    old = part.with_name(f"{part.name}.old")
    if to.exists():
        to.rename(old)
    part.rename(to)
    shutil.rmtree(old, ignore_errors=True)

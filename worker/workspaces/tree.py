"""Files of one folder, by paths that a stranger gives: nothing outside of it is read or written.

Every step of a path is opened from the one before it and never through a symbolic link, so a link that
appears between the check and the use leads nowhere either. Refuses what git itself runs or trusts (`.git`) to
whoever writes. Sizes are bounded: a file is read whole.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILE_MAX_BYTES = 2_000_000
PATH_MAX_CHARS = 1000
DEPTH_MAX = 64
PROTECTED = ".git"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class NotThere:
    """Why a path was not read or written, and what to do; for a person or a model."""

    why: str


class _Refused(Exception):
    """Inside this module only; outside it is a `NotThere`."""


class Tree:
    """A folder. `root` itself is trusted; nothing below it is."""

    def __init__(self, root: Path, *, inside: str = "", most_bytes: int = FILE_MAX_BYTES) -> None:
        """`inside` is what the folder is called where the paths come from (`/workspace`)."""
        self._root, self._inside, self._most_bytes = root, inside, most_bytes

    def read(self, path: str) -> str | NotThere:
        """The text of a file; bytes that are no UTF-8 are replaced."""
        try:
            with self._parent(self._parts(path), make=False) as (folder, name):
                return _text(folder, name, self._most_bytes)
        except (_Refused, OSError, UnicodeError) as error:
            return _why(path, error)

    def write(self, path: str, text: str) -> NotThere | None:
        """All of a file, at once or not at all; folders are made. Keeps the mode of one that was there."""
        try:
            parts = self._parts(path)
            data = _writable(parts, text, self._most_bytes)
            with self._parent(parts, make=True) as (folder, name):
                _replace(folder, name, data)
        except (_Refused, OSError, UnicodeError) as error:
            return _why(path, error)
        return None

    def entries(self, path: str, most: int) -> list[str] | NotThere:
        """Files and folders at and below a folder, folders with a slash; those in `.git` are left out.

        At most `most`, and then one line that says so.
        """
        try:
            with self._folder(self._parts(path) if path not in {"", "."} else [], make=False) as folder:
                found: list[str] = []
                is_whole = _walk(folder, "", most, found)
        except (_Refused, OSError, UnicodeError) as error:
            return _why(path, error)
        return found if is_whole else [*found, f"… and more: only {most} are listed; name a folder"]

    def _parts(self, path: str) -> list[str]:
        if "\0" in path or len(path) > PATH_MAX_CHARS:
            raise _Refused(f"a path has no NUL and at most {PATH_MAX_CHARS} characters")
        below = path
        if path.startswith("/"):
            if not self._inside or not f"{path}/".startswith(f"{self._inside}/"):
                raise _Refused("it is outside of the workspace; give a path relative to it")
            below = path[len(self._inside) :]
        parts = [part for part in below.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise _Refused("'..' is not taken; give a path relative to the workspace")
        if len(parts) > DEPTH_MAX:
            raise _Refused(f"a path has at most {DEPTH_MAX} folders")
        return parts

    @contextlib.contextmanager
    def _parent(self, parts: list[str], *, make: bool) -> Iterator[tuple[int, str]]:
        if not parts:
            raise _Refused("it names the folder itself, not a file")
        with self._folder(parts[:-1], make=make) as folder:
            yield folder, parts[-1]

    @contextlib.contextmanager
    def _folder(self, parts: list[str], *, make: bool) -> Iterator[int]:
        current = os.open(self._root, _DIRECTORY & ~os.O_NOFOLLOW)
        try:
            for part in parts:
                below = _step(current, part, make=make)
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)


def _writable(parts: list[str], text: str, most_bytes: int) -> bytes:
    if any(part.lower() == PROTECTED for part in parts):
        raise _Refused("what is in .git is not written; use git for it")
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > most_bytes:
        raise _Refused(f"{len(data)} bytes are more than {most_bytes}; write it in parts")
    return data


def _step(folder: int, name: str, *, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o777, dir_fd=folder)
    _no_link(folder, name)
    return os.open(name, _DIRECTORY, dir_fd=folder)


def _no_link(folder: int, name: str) -> None:
    """For the message only; O_NOFOLLOW is what keeps it."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            target = os.readlink(name, dir_fd=folder)
            raise _Refused(f"{name} is a symbolic link to {target}; links are not followed, name the file itself")


def _text(folder: int, name: str, most_bytes: int) -> str:
    _no_link(folder, name)
    file = os.open(name, _READ, dir_fd=folder)
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise _Refused("it is no file; list it, if it is a folder")
        if found.st_size > most_bytes:
            raise _Refused(f"it has {found.st_size} bytes, more than {most_bytes}; read a part of it by a command")
        return opened.read(most_bytes).decode("utf-8", "replace")


def _replace(folder: int, name: str, data: bytes) -> None:
    mode: int | None = None
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        _no_link(folder, name)
        if not stat.S_ISREG(found.st_mode):
            raise _Refused("it is there and no file")
        mode = stat.S_IMODE(found.st_mode) & 0o777
    part = f".{os.getpid()}.{os.urandom(6).hex()}.part"
    file = os.open(part, _NEW, 0o666, dir_fd=folder)
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(data)
            if mode is not None:
                os.fchmod(file, mode)
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise


def _walk(folder: int, before: str, most: int, found: list[str]) -> bool:
    """Whether all were listed."""
    with os.scandir(folder) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name == PROTECTED:
            continue
        if len(found) >= most:
            return False
        if not entry.is_dir(follow_symlinks=False):
            found.append(f"{before}{entry.name}")
            continue
        found.append(f"{before}{entry.name}/")
        if before.count("/") >= DEPTH_MAX:
            continue
        below = os.open(entry.name, _DIRECTORY, dir_fd=folder)
        try:
            if not _walk(below, f"{before}{entry.name}/", most, found):
                return False
        finally:
            os.close(below)
    return True


def _why(path: str, error: Exception) -> NotThere:
    said = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return NotThere(f"{path[:200]!r}: {said}")

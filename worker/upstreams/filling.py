"""Secrets put into a server's entry at the moment it is started, and taken away when its session is over.

A `secret_file` is a file in memory (tmpfs) that only this user can read. Owns the filling; `secret_words.py` has
the forms. Refuses to keep anything filled longer than its session.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from tasks.secretref import PREFIX, Secret, SecretRef, parse_ref
from worker.upstreams.life import ServerEnded
from worker.upstreams.secret_words import REF, refs_in
from worker.upstreams.servers_entries import HttpEntry, StdioEntry, texts_of

STRUCK_CHARS = 6
"""A value, or a line of one, at least this long is struck out of the server's logs; shorter ones are words."""
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
FILE_MODE = 0o600


class NotFilled(ServerEnded):
    """Its secrets are not to be had now; the message says why, for people."""


class SecretSource(Protocol):
    """Where this node's secrets come from."""

    async def fetch(self, server: str, refs: Collection[SecretRef]) -> Mapping[SecretRef, Secret]:
        """All of them. Raises NotFilled."""
        ...


class NoSecrets:
    """Of a node without a fleet."""

    async def fetch(self, server: str, refs: Collection[SecretRef]) -> Mapping[SecretRef, Secret]:
        """Raises NotFilled."""
        names = ", ".join(sorted(map(str, refs)))
        raise NotFilled(f"{server} needs {names}, which only a node that joined a fleet is given")


def refs_of(entry: StdioEntry | HttpEntry) -> frozenset[SecretRef]:
    """Everything that this server needs to be started."""
    return frozenset(ref for text in texts_of(entry) for ref in refs_in(text))


@dataclass(slots=True)
class Filled:
    """What was put in, until `empty`."""

    values: tuple[str, ...] = field(default=(), repr=False)
    """To be struck out of logs."""
    folder: Path | None = None

    def empty(self) -> None:
        """Its files are gone."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


async def filled_stdio(
    entry: StdioEntry, source: SecretSource, memory: Callable[[], Path]
) -> tuple[StdioEntry, Filled]:
    """The entry with its secrets in it; `empty` is owed.

    Raises:
        NotFilled: they are not to be had, or there is no folder in memory for those that are files.
    """
    refs = refs_of(entry)
    if not refs:
        return entry, Filled()
    found = await source.fetch(entry.name, refs)
    filled = Filled(_struck(found.values()))
    try:
        put = _Putter(found, filled, memory)
        env = {name: put.into(text) for name, text in entry.env.items()}
        return replace(entry, env=env, args=tuple(put.into(text) for text in entry.args)), filled
    except OSError as error:
        filled.empty()
        raise NotFilled(f"its secrets cannot be put into files ({error.strerror}); use env for them") from None
    except BaseException:
        filled.empty()
        raise


async def filled_headers(entry: HttpEntry, source: SecretSource) -> dict[str, str]:
    """Its headers with their secrets. Raises NotFilled."""
    refs = refs_of(entry)
    found = await source.fetch(entry.name, refs) if refs else {}
    put = _Putter(found, Filled(), _no_files)
    return {name: put.into(text) for name, text in entry.headers.items()}


def memory_folder(mounts: Path = Path("/proc/self/mounts"), wanted: Iterable[Path] = ()) -> Path:
    """A folder that is in memory and that we may write. Raises NotFilled."""
    kinds = {Path(words[1]): words[2] for line in mounts.read_text().splitlines() if len(words := line.split()) > 2}  # noqa: PLR2004
    for folder in (*wanted, Path(f"/run/user/{os.getuid()}"), Path("/dev/shm")):  # noqa: S108 - that it is one is asked
        on = next((one for one in (folder, *folder.parents) if one in kinds), None)
        if on is not None and kinds[on] in IN_MEMORY and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise NotFilled("this machine has no folder in memory (tmpfs) for secret files; use env for its secrets")


class _Putter:
    """Puts values into texts; files are made when the first is asked for."""

    def __init__(self, found: Mapping[SecretRef, Secret], filled: Filled, memory: Callable[[], Path]) -> None:
        self._found, self._filled, self._memory = found, filled, memory

    def into(self, text: str) -> str:
        """With every reference replaced."""
        if text.startswith(PREFIX):
            return self._found[parse_ref(text)].reveal()
        return REF.sub(self._one, text)

    def _one(self, found: re.Match[str]) -> str:
        ref = parse_ref(PREFIX + found[2])
        value = self._found[ref].reveal()
        return value if found[1] == "secret_ref" else str(self._file(ref, value))

    def _file(self, ref: SecretRef, value: str) -> Path:
        if self._filled.folder is None:
            self._filled.folder = Path(tempfile.mkdtemp(prefix="mcpfleet-", dir=self._memory()))  # mode 0700
        path = self._filled.folder / f"{ref.tenant}.{ref.owner}.{ref.name}"
        if not path.exists():
            path.touch(mode=FILE_MODE)
            path.write_text(value, encoding="utf-8")
        return path


def _struck(values: Iterable[Secret]) -> tuple[str, ...]:
    """The values, and the lines of those with several: a log has lines. Longest first, so that none is left half."""
    texts = [value.reveal() for value in values]
    lines = {line for text in texts for line in (text, *text.splitlines()) if len(line) >= STRUCK_CHARS}
    return tuple(sorted(lines, key=len, reverse=True))


def _no_files() -> Path:
    raise NotFilled("a server that is reached by URL can read no file of this machine; write secret_ref")

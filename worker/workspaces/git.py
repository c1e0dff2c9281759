"""Git as a program, in an environment that nobody else has a say in.

Owns how it is started, its limits and its end. Refuses every configuration but the words here and that of the
repository it is told to use: no system or user settings, no hooks, no prompts, no file monitor, no helpers.
Where an agent has been, `GIT_DIR` is never the agent's: see results.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.errors import SettingsError
from worker.workspaces.errors import DiskFull, GitFailed, GitTooSlow, is_full

LOCAL_S = 120.0
"""For what needs no network."""
OUT_BYTES = 64 * 1024 * 1024
"""Of what git says to us: lists of names. A patch has its own limit."""
SAID_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"

_ENVIRON = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/true",
    "SSH_ASKPASS": "/bin/true",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_ALLOW_PROTOCOL": "file",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": "/bin/false",
    "LC_ALL": "C",  # errors.py reads its words
}
_WORDS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "credential.helper=",
    "gc.auto=0",  # a mirror must not lose what a clone borrows
    "maintenance.auto=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "transfer.bundleURI=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "advice.detachedHead=false",
)


@dataclass(frozen=True, slots=True)
class Repository:
    """What git works on, named in full: it never looks for one by itself."""

    folder: Path
    work: Path | None = None
    index: Path | None = None

    def environ(self) -> dict[str, str]:
        """`GIT_DIR` and its like."""
        named = {"GIT_DIR": self.folder, "GIT_WORK_TREE": self.work, "GIT_INDEX_FILE": self.index}
        return {name: str(path) for name, path in named.items() if path is not None}


@dataclass(frozen=True, slots=True)
class Allowed:
    """What one call of git may take, and what it is told beside its words."""

    time_s: float = LOCAL_S
    out_bytes: int = OUT_BYTES
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    locks: tuple[int, ...] = ()
    """Descriptors that it keeps open: a git that outlives a killed worker still holds what it works under."""


class TooMuchOutput(Exception):
    """More than `Allowed.out_bytes`; git was ended."""


class Git:
    """Starts it. `home` is an empty folder of this node's own."""

    def __init__(self, home: Path, *, environ: Mapping[str, str] | None = None) -> None:
        """`environ`: what a remote may need, such as SSH_AUTH_SOCK, HTTPS_PROXY or another GIT_SSH_COMMAND.

        Raises:
            SettingsError: git is not installed.
        """
        program = shutil.which("git")
        if program is None:
            raise SettingsError("git is not installed, so no project can be worked on: apt-get install git")
        self._program, self._home = program, home
        fixed = {"HOME": str(home), "PATH": os.defpath, "GIT_SSH_COMMAND": SSH}
        self._environ = fixed | dict(environ or {}) | _ENVIRON

    async def run(
        self, *words: str, at: Repository | None = None, given: bytes = b"", allowed: Allowed | None = None
    ) -> bytes:
        """What it writes.

        Raises:
            GitFailed: it ended with an error.
            GitTooSlow: it was ended.
            DiskFull: it had no room.
            TooMuchOutput: it wrote more than allowed.
        """
        may = allowed or Allowed()
        options = [word for setting in _WORDS for word in ("-c", setting)]
        process = await _started(
            *(self._program, *options, *words),
            cwd=at.work if at is not None and at.work is not None else self._home,
            env=self._environ | (at.environ() if at is not None else {}) | dict(may.environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=may.locks,
        )
        try:
            async with asyncio.timeout(may.time_s):
                out, said = await _talk(process, given, may.out_bytes)
                status = await process.wait()
        except TimeoutError:
            raise GitTooSlow(words[0], may.time_s) from None
        finally:
            await _end(process)
        if status == 0:
            return out
        if is_full(said):
            raise DiskFull(said.strip()[-200:])
        raise GitFailed(words[0], status, said, out[-SAID_BYTES:].decode(errors="replace"))


async def _started(*words: str, **how: Any) -> asyncio.subprocess.Process:  # noqa: ANN401 - as asyncio takes it
    """Not cancelled half-way: asyncio would end git alone then, and wait for what that had started."""
    starting = asyncio.create_task(asyncio.create_subprocess_exec(*words, **how))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise


async def _talk(process: asyncio.subprocess.Process, given: bytes, most_bytes: int) -> tuple[bytes, str]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    gave, tail = asyncio.create_task(_give(process.stdin, given)), asyncio.create_task(_tail(process.stderr))
    try:
        out = await _whole(process.stdout, most_bytes)
        return out, (await tail).decode(errors="replace")
    finally:
        gave.cancel()
        tail.cancel()


async def _give(pipe: asyncio.StreamWriter, given: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended first: its status says why
        pipe.write(given)
        await pipe.drain()
    pipe.close()


async def _whole(pipe: asyncio.StreamReader, most_bytes: int) -> bytes:
    parts, size = [], 0
    while chunk := await pipe.read(_CHUNK_BYTES):
        parts.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            raise TooMuchOutput
    return b"".join(parts)


async def _tail(pipe: asyncio.StreamReader) -> bytes:
    kept = b""
    while chunk := await pipe.read(_CHUNK_BYTES):
        kept = (kept + chunk)[-SAID_BYTES:]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    """Git and what it started, ssh for one: all are in its group."""
    if process.returncode is None:
        _kill(process)
        await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)

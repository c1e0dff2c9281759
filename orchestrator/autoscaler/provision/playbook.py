"""One run of `ansible-playbook` from start to end: its processes, its log, and which task failed.

It is run on a leash (`leash.py`): killed as we may be, no playbook goes on without us.
Refuses to know what the playbook does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

LOG_BYTES = 512 * 1024
"""Of one log; the part before it is kept too, as `.1`, so that beginning or end is never all there is."""
ENDS_WITHIN_S = 5.0
"""After SIGTERM; then every process of the run is killed."""
LINE_BYTES = 1024 * 1024
"""Longer lines are cut: results of modules stand in one line each."""
DETAIL_CHARS = 400
LEASH = "orchestrator.autoscaler.provision.leash"
_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.*?)\] \**$")
_FATAL = re.compile(r"^(?:fatal|failed): \[[^]]*\].*?=> (?P<result>{.*)$")


@dataclass(frozen=True, slots=True)
class Run:
    """How it ended. `task` and `detail` are of the task that failed; empty where none did."""

    is_done: bool
    task: str
    detail: str
    took_s: float


class Playbook:
    """One run.

    Args:
        words: program and arguments, without secrets.
        environ: all of its environment.
        log: what it prints; bounded.
        limit_s: then it is ended.
        scratch: its secrets. Removed by whoever started it; by the leash where that one is killed.
    """

    def __init__(
        self, words: tuple[str, ...], environ: Mapping[str, str], log: Path, limit_s: float, scratch: Path
    ) -> None:
        self._words, self._environ, self._log, self._limit_s = words, environ, log, limit_s
        self._scratch = scratch
        self._task = self._failed = self._detail = self._last = ""

    async def run(self) -> Run:
        """Until it has ended, by itself or by us. Cancelled, all of its processes are gone before this returns."""
        began_s = time.monotonic()
        self._log.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", LEASH, str(self._scratch), *self._words),
            env=dict(self._environ),
            stdin=asyncio.subprocess.PIPE,  # never written to; its end is ours
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=LINE_BYTES,
        )
        try:
            async with asyncio.timeout(self._limit_s):
                await self._read(process)
                code = await process.wait()
        except TimeoutError:
            detail = f"no end after {self._limit_s:g} s"
            return Run(is_done=False, task=self._task, detail=detail, took_s=time.monotonic() - began_s)
        finally:
            await asyncio.shield(_end(process))
        took_s = time.monotonic() - began_s
        if code == 0:
            return Run(is_done=True, task="", detail="", took_s=took_s)
        detail = self._detail or f"exit status {code}: {self._last or 'no word why'}"
        return Run(is_done=False, task=self._failed, detail=detail[:DETAIL_CHARS], took_s=took_s)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with contextlib.closing(_Log(self._log)) as log:
            while True:
                try:
                    line = await process.stdout.readline()
                except ValueError:  # longer than the limit; asyncio has dropped it
                    line = b"(a line longer than can be kept)\n"
                if not line:
                    return
                log.write(line)
                self._heed(line.decode(errors="replace").rstrip())

    def _heed(self, line: str) -> None:
        if line:
            self._last = line
        if task := _TASK.match(line):
            self._task = task["name"]
        elif fatal := _FATAL.match(line):
            self._failed, self._detail = self._task, _said(fatal["result"])


class _Log:
    """A file that begins anew when it is full, with the part before beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        path.chmod(0o600)
        self._size_bytes = 0

    def write(self, line: bytes) -> None:
        if self._size_bytes + len(line) > LOG_BYTES:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file = self._path.open("wb")
            self._path.chmod(0o600)
            self._size_bytes = 0
        self._file.write(line)
        self._file.flush()
        self._size_bytes += len(line)

    def close(self) -> None:
        self._file.close()


def _said(result: str) -> str:
    """The module's own words; all of the result where it has none."""
    try:
        form = json.loads(result)
    except ValueError:
        return result
    said = [str(form[key]).strip() for key in ("msg", "stderr") if form.get(key)]
    return ": ".join(dict.fromkeys(said)) or result


async def _end(process: asyncio.subprocess.Process) -> None:
    """All of its processes. Ansible's workers lead sessions of their own, so the group alone is not enough."""
    if process.returncode is not None:
        return
    family = _family(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ENDS_WITHIN_S):
            await process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        with contextlib.suppress(psutil.Error):  # knows by its birth that it is still the same one
            member.kill()
    await process.wait()


def _family(pid: int) -> set[psutil.Process]:
    try:
        return set(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return set()

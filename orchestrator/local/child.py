"""One child process: started in a group of its own, waited for until ready, ended within a bound.

Refuses to decide what to do when it dies: `fleet.py` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.local.errors import ChildFailed
from orchestrator.local.guard import birth, descendants
from orchestrator.local.logfile import LogFile

POLL_FIRST_S, POLL_CAP_S = 0.03, 0.3
"""Asking whether a child is ready costs it, and us, the CPU that it starts with."""
TAIL_LINES = 12

Ready = Callable[[], Awaitable[bool]]


class Registrar(Protocol):
    """Who must know of every living group."""

    @property
    def mark(self) -> Mapping[str, str]:
        """For the environment of every child: finds one that was started and could not be told of any more."""

    def started(self, group: int, grace_s: float) -> None:
        """It lives."""

    def ended(self, group: int) -> None:
        """It does not."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to start.

    Attributes:
        argv: program and arguments. Never a secret: every user of the machine sees them.
        environ: all of its environment.
        ready: asked until it says yes.
        ready_within_s: then it counts as failed.
        stop_within_s: between SIGTERM and SIGKILL.
        is_essential: its death ends the fleet; otherwise it is started again.
        stdin: sent and closed; None gives it nothing.
        fds: descriptors it inherits.
    """

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    cwd: Path
    ready: Ready
    ready_within_s: float = 30.0
    stop_within_s: float = 10.0
    is_essential: bool = True
    stdin: bytes | None = None
    fds: tuple[int, ...] = field(default=())


class Child:
    """A started `ChildSpec`."""

    def __init__(self, spec: ChildSpec, log: LogFile, registrar: Registrar) -> None:
        self.spec, self.log = spec, log
        self.is_ready = False
        self.restarts = 0
        self._registrar = registrar
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process and group id while it lives."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> None:
        """Start it; does not wait until it is ready.

        Raises:
            ChildFailed: the program cannot be started.
        """
        spec = self.spec
        descriptor = self.log.open()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *spec.argv,
                stdin=asyncio.subprocess.DEVNULL if spec.stdin is None else asyncio.subprocess.PIPE,
                stdout=descriptor,
                stderr=descriptor,
                env={**spec.environ, **self._registrar.mark},
                cwd=spec.cwd,
                start_new_session=True,
                pass_fds=spec.fds,
            )
        except OSError as error:
            raise ChildFailed(spec.name, f"cannot be started: {error}", "", self.log.path) from error
        finally:
            os.close(descriptor)
        self._registrar.started(self._process.pid, spec.stop_within_s)
        if spec.stdin is not None:
            await self._feed(spec.stdin)

    async def until_ready(self) -> None:
        """Wait until it says that it is.

        Raises:
            ChildFailed: it died first, or took too long.
        """
        until = time.monotonic() + self.spec.ready_within_s
        poll_s = POLL_FIRST_S
        while not await self.spec.ready():
            if self.pid is None:
                raise self.failure(f"ended at its start with status {self.returncode}")
            if time.monotonic() > until:
                raise self.failure(f"was not ready within {self.spec.ready_within_s:.0f} s")
            await asyncio.sleep(poll_s)
            poll_s = min(POLL_CAP_S, poll_s * 1.5)
        self.is_ready = True

    @property
    def returncode(self) -> int | None:
        """None while it lives; negative for the signal that ended it."""
        return None if self._process is None else self._process.returncode

    async def died(self) -> int:
        """Returns its status when it ends; what it left in its group is killed at once."""
        assert self._process is not None
        status = await self._process.wait()
        self._bury()
        return status

    async def stop(self, hurry: asyncio.Event, within_s: float | None = None) -> bool:
        """Ask it to end, wait (not when in a hurry), kill what is left. True: it ended by itself."""
        process = self._process
        if process is None or process.returncode is not None:
            return True
        family = descendants(process.pid)
        self._signal(signal.SIGTERM)
        is_clean = await self._ends_within(within_s or self.spec.stop_within_s, hurry)
        self._signal(signal.SIGKILL)
        await process.wait()
        self._bury()
        for pid, born in family.items():
            if born == birth(pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        return is_clean

    def _bury(self) -> None:
        """At once after its end: later its number may be another group's."""
        assert self._process is not None
        self.is_ready = False
        self._signal(signal.SIGKILL)
        self._registrar.ended(self._process.pid)

    async def _ends_within(self, limit_s: float, hurry: asyncio.Event) -> bool:
        assert self._process is not None
        ended, hurried = asyncio.create_task(self._process.wait()), asyncio.create_task(hurry.wait())
        done, _ = await asyncio.wait({ended, hurried}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        ended.cancel()
        return ended in done

    def failure(self, what: str) -> ChildFailed:
        """An error with the last lines of its log."""
        return ChildFailed(self.spec.name, what, self.log.tail(TAIL_LINES), self.log.path)

    async def _feed(self, data: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()
            self._process.stdin.close()

    def _signal(self, number: int) -> None:
        """To the whole group; its leader may be gone while others of it live."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

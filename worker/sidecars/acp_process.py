"""The process of an ACP agent: a sandbox with it inside, ended for certain.

Owns its pipes and its end. Signals reach the sandbox, not the agent in it: the sandbox's end is the end of
everything that was started there. Refuses to understand what is said.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass

from worker.sidecars.acp_wire import Wire
from worker.workspaces import sandbox

TERM_S = 1.0
KEPT_BYTES = 4_000
SHOWN_CHARS = 500
CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Found:
    """What every sandbox needs."""

    bwrap: str
    interpreter: str
    """As it is called inside."""


class AcpProcess:
    """Started. Must be killed by whoever started it."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._complaints = bytearray()
        self._draining = asyncio.create_task(self._drain())
        self.wire = Wire(process.stdout, process.stdin)

    @classmethod
    async def start(cls, program: tuple[str, ...], world: tuple[str, sandbox.Sandbox]) -> AcpProcess:
        """`world`: bubblewrap, and what is seen inside. From the loop's thread: it dies with the one that starts it.

        Raises:
            OSError: it cannot be started.
        """
        words = sandbox.command(*world, program)
        environ = sandbox.environ(world[1])
        return cls(await asyncio.create_subprocess_exec(*words, env=environ, stdin=PIPE, stdout=PIPE, stderr=PIPE))

    async def why(self) -> str:
        """How it ended, for a person. Not before its output did."""
        if self.wire.broken is not None:
            return f"the agent cannot be understood: {self.wire.broken}"
        await self._ended(TERM_S)
        status = self._process.returncode
        said = f"the agent ended without an answer (status {status})"
        if status is None:
            said = "the agent closed its output without an answer"
        if self.wire.first_strange is not None:
            said += f"; it said what is no message of ACP: {self.wire.first_strange!r}"
        complaints = self._complaints.decode(errors="replace").strip()
        return f"{said}; it complained: {complaints[-SHOWN_CHARS:]}" if complaints else said

    async def leave(self, within_s: float) -> None:
        """Close its input and let it end by itself."""
        await self.wire.close()
        await self._ended(within_s)

    async def stop(self) -> None:
        """TERM, then KILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await self._ended(TERM_S)
        await self.kill()

    async def kill(self) -> None:
        """Nothing of it is left after this."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self.wire.drain()
        await self._process.wait()
        self._draining.cancel()
        await asyncio.gather(self._draining, return_exceptions=True)

    async def _ended(self, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._process.wait()

    async def _drain(self) -> None:
        """What it complains of; the end of it is kept."""
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(CHUNK_BYTES):
            self._complaints += chunk
            del self._complaints[:-KEPT_BYTES]

"""A real `mcpfleet-worker` process, driven by a test. Ended by its pid, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import httpx

from worker.testing.fake_orchestrator import WAIT_S, FakeOrchestrator

PACKAGES = Path(__file__).resolve().parents[2]
ASK_EVERY_S = 0.02
JOIN_TOKEN = "token-join"  # noqa: S105 - of a fake orchestrator


class NodeUnderTest:
    """The process, and what it says over HTTP."""

    def __init__(self, process: asyncio.subprocess.Process, fake: FakeOrchestrator) -> None:
        self.process = process
        self._fake = fake

    @property
    def url(self) -> str:
        """Of its HTTP server, as it told the orchestrator."""
        return self._fake.joins[-1].offer.url

    async def health(self) -> dict[str, object]:
        """`/health`, whatever its status."""
        async with httpx.AsyncClient() as http:
            view: dict[str, object] = (await http.get(f"{self.url}/health")).json()
            return view

    async def health_until(self, condition: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """Ask `/health` until it is so."""
        async with asyncio.timeout(WAIT_S):
            while True:
                view = await self.health()
                if condition(view):
                    return view
                await asyncio.sleep(ASK_EVERY_S)

    async def metric(self, sample: str) -> float:
        """One sample of `/metrics`, by its name and labels as they stand there; 0 where it is absent."""
        async with httpx.AsyncClient() as http:
            lines = (await http.get(f"{self.url}/metrics")).text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{sample} ")), 0.0)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send one."""
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        """Wait for its end."""
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()

    async def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def node_process(
    fake: FakeOrchestrator,
    state_dir: Path,
    environ: Mapping[str, str],
    *options: str,
    module: Sequence[str] = ("worker.cli",),
    is_joining: bool = True,
    drain_s: float = 30.0,
    further: Mapping[str, str] | None = None,
) -> AsyncIterator[NodeUnderTest]:
    """Started, joined unless told otherwise, and gone at the end."""
    joins = len(fake.joins)
    variables = {key: value for key, value in environ.items() if not key.startswith("MCPFLEET_")} | {
        "PYTHONPATH": str(PACKAGES),
        "MCPFLEET_NODE_ORCHESTRATOR_URL": fake.url,
        "MCPFLEET_NODE_JOIN_TOKEN": JOIN_TOKEN,
        "MCPFLEET_NODE_STATE_DIR": str(state_dir),
        "MCPFLEET_NODE_DRAIN_S": str(drain_s),
        **(further or {}),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", *module, "run", "--name", "a1", *options, env=variables
    )
    node = NodeUnderTest(process, fake)
    try:
        if is_joining:
            await fake.until(lambda: len(fake.joins) > joins)
        yield node
    finally:
        if process.returncode is None:
            await node.kill()

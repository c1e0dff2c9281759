"""A real `mcpfleet-worker` process, driven by a test. Ended by its pid, whatever happens.

Forked from a server that has imported what a node needs: its own start would take two seconds of CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx

from worker.cli import main
from worker.testing.fake_orchestrator import WAIT_S, FakeOrchestrator

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["worker.cli", "worker.process"])
LOG = "node.log"
ASK_EVERY_S = 0.02
JOIN_TOKEN = "token-join"  # noqa: S105 - of a fake orchestrator


class NodeUnderTest:
    """The process, and what it says over HTTP."""

    def __init__(self, process: ForkServerProcess, fake: FakeOrchestrator) -> None:
        self._process = process
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
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    async def exit_code(self) -> int:
        """Wait for its end."""
        await asyncio.to_thread(self._process.join, WAIT_S)
        code = self._process.exitcode
        assert code is not None, f"it did not end within {WAIT_S:g} s"
        return code

    async def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        await self.exit_code()


@contextlib.asynccontextmanager
async def node_process(
    fake: FakeOrchestrator,
    state_dir: Path,
    environ: Mapping[str, str],
    *options: str,
    is_joining: bool = True,
) -> AsyncIterator[NodeUnderTest]:
    """Started, joined unless told otherwise, and gone at the end."""
    joins = len(fake.joins)
    ours = {
        "MCPFLEET_NODE_ORCHESTRATOR_URL": fake.url,
        "MCPFLEET_NODE_JOIN_TOKEN": JOIN_TOKEN,
        "MCPFLEET_NODE_STATE_DIR": str(state_dir),
    }
    variables = {key: value for key, value in environ.items() if not key.startswith("MCPFLEET_")} | ours
    process = _forked(("run", "--name", "a1", *options), variables, state_dir)
    node = NodeUnderTest(process, fake)
    try:
        if is_joining:
            await fake.until(lambda: len(fake.joins) > joins)
        yield node
    finally:
        if process.is_alive():
            await node.kill()
        _show(state_dir)


def _forked(words: tuple[str, ...], variables: dict[str, str], state_dir: Path) -> ForkServerProcess:
    state_dir.mkdir(parents=True, exist_ok=True)
    process = FORKS.Process(target=_be_a_node, args=(words, variables, state_dir / LOG))
    process.start()
    return process


def _show(state_dir: Path) -> None:
    """To where pytest captures: it prints that of a test that failed."""
    sys.stdout.write((state_dir / LOG).read_text())


def _be_a_node(words: tuple[str, ...], variables: dict[str, str], log: Path) -> None:
    """In the forked process: what the command `mcpfleet-worker` does."""
    os.environ.clear()
    os.environ.update(variables)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["mcpfleet-worker", *words]
    main()

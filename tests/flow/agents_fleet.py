"""An orchestrator and nodes with Claude Code beside them, each a process, and ways between them that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest

from tests.contract.claude_binary import BINARY, VERSION
from tests.contract.confined_rig import forget_groups
from tests.flow.cuttable import Cuttable, cuttable
from worker.testing.messages_double import INPUT_TOKENS, OUTPUT_TOKENS

WITHIN_S = 120.0
LEASE_TTL_S = 15
"""A busy machine must not lose the node that lives."""
ASK_EVERY_S = 0.1
COST_USD = (INPUT_TOKENS * 3.0 + OUTPUT_TOKENS * 15.0) / 1_000_000


@dataclass
class Fleet:
    """An orchestrator and nodes, each a process, ended by its pid."""

    folder: Path
    redis_url: str
    model_url: str
    project: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    join_token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    ways: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    way_of: dict[str, Cuttable] = field(default_factory=dict)
    url: str = ""

    async def start(self, name: str, *command: str, **settings: str) -> None:
        """A process of ours with these settings."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *command, env=ours | settings, cwd=self.folder, stdout=log, stderr=log
            )

    async def start_orchestrator(self) -> None:
        """On SQLite; what an unreachable agent has is no grace, so that a test need not wait for it."""
        ready = self.folder / "ready"
        await self.start(
            "orchestrator",
            *("orchestrator.cli.main", "serve"),
            MCPFLEET_DATABASE_URL=f"sqlite:///{self.folder / 'ledger.db'}",
            MCPFLEET_REDIS_URL=self.redis_url,
            MCPFLEET_BLOB_DIR=str(self.folder / "blobs"),
            MCPFLEET_TOKEN=self.token,
            MCPFLEET_JOIN_TOKEN=self.join_token,
            MCPFLEET_PORT="0",
            MCPFLEET_READY_FILE=str(ready),
            MCPFLEET_LEASE_TTL_S=str(LEASE_TTL_S),
            MCPFLEET_GRACE_AGENTS_S="0",
        )
        await self.until(ready.exists, "the orchestrator is up")
        self.url = f"http://127.0.0.1:{ready.read_text().strip().rsplit(':', 1)[1]}"

    async def start_node(self, name: str) -> None:
        """With Claude Code beside it, and a way to the orchestrator that can be cut."""
        way, url = await self.ways.enter_async_context(cuttable(int(self.url.rsplit(":", 1)[1])))
        self.way_of[name] = way
        servers = self.folder / f"{name}.json"
        ours = {"sidecars": self.sidecars(), "projects": {"shop": {"git": self.project}}}
        servers.write_text(json.dumps({"mcpServers": {}, "mcpfleet": ours}))
        await self.start(
            name,
            *("worker.cli", "run", "--name", name, "--servers", str(servers)),
            MCPFLEET_NODE_ORCHESTRATOR_URL=url,
            MCPFLEET_NODE_JOIN_TOKEN=self.join_token,
            MCPFLEET_NODE_STATE_DIR=str(self.folder / name),
        )

    def sidecars(self) -> dict[str, Any]:
        """As the servers file has them."""
        key = self.folder / "key"
        key.write_text("not-a-secret")
        agent = {
            "kind": "claude_code",
            "binary": str(BINARY),
            "version": VERSION,
            "key_file": str(key),
            "url": self.model_url,
            "model": "claude-sonnet-5",
            "prices": {"claude-sonnet": {"input": 3.0, "output": 15.0}},
            "capsule_every_s": 0.1,
        }
        return {"claude_code": agent}

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """One answer."""
        return await self._ask("GET", path, params=query)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One answer."""
        return await self._ask("POST", path, json=body)

    async def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=90, headers={"Authorization": f"Bearer {self.token}"}) as http:
            answer = await http.request(method, self.url + path, **more)
        assert answer.is_success, answer.text
        said: dict[str, Any] = answer.json()
        return said

    async def nodes_of(self, tool: str) -> int:
        """How many offer it."""
        return sum(each["nodes"] for each in (await self.get("/v1/tools"))["items"] if each["name"] == tool)

    def capsule_of(self, invocation: str, number: int = 1) -> str | None:
        """As the ledger has it, of this number or a later one."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'ledger.db'}?mode=ro", uri=True)) as ledger:
            query = "SELECT capsule_blob FROM mcpfleet_invocations WHERE id = ? AND capsule_number >= ?"
            row = ledger.execute(query, (invocation, number)).fetchone()
        return None if row is None else row[0]

    def blobs(self) -> list[str]:
        """What the store holds."""
        return [path.parent.name + path.name for path in (self.folder / "blobs").glob("??/*")]

    async def kill(self, name: str) -> list[psutil.Process]:
        """Of kill -9, and what it had started."""
        process = self.running.pop(name)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        return family

    async def until(self, is_so: Callable[[], Any], what: str) -> Any:
        """Poll, bounded; `is_so` may be a coroutine function."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                while True:
                    found = is_so()
                    if asyncio.iscoroutine(found):
                        found = await found
                    if found:
                        return found
                    if any(process.returncode is not None for process in self.running.values()):
                        break
                    await asyncio.sleep(ASK_EVERY_S)
        pytest.fail(f"not so: {what}\n{self.logs()}", pytrace=False)

    def logs(self) -> str:
        """The end of what every process said."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    async def ended(self, path: str) -> dict[str, Any]:
        """The call, once it is over."""

        async def is_over() -> dict[str, Any] | None:
            view = await self.get(path)
            return view if view["ended_at"] else None

        view: dict[str, Any] = await self.until(is_over, "the call has ended")
        return view

    @contextlib.asynccontextmanager
    async def up(self, *names: str) -> AsyncIterator[Self]:
        """With these nodes, each of which offers the agent; ended whatever happens."""
        try:
            await self.start_orchestrator()
            for name in names:
                await self.start_node(name)

            async def is_offered() -> bool:
                return await self.nodes_of("claude_code.run") == len(names)

            await self.until(is_offered, "every node offers the agent")
            yield self
        finally:
            for process in self.running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            await self.ways.aclose()
            for home in self.folder.rglob("sidecars/*_code"):
                forget_groups(home)

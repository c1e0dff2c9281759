"""A machine dies under an agent: its session goes on on another node, by real processes and the real Claude Code."""

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
from typing import Any

import httpx
import psutil
import pytest

from orchestrator.testing.serving import serving
from tests.contract.claude_binary import BINARY, VERSION
from tests.contract.confined_rig import forget_groups
from tests.contract.workspace_rig import Rig
from worker.testing.messages_double import INPUT_TOKENS, OUTPUT_TOKENS, MessagesDouble, text, use

pytestmark = pytest.mark.live("claude")

WITHIN_S = 120.0
LEASE_TTL_S = 15
"""A busy machine must not lose the node that lives."""
ASK_EVERY_S = 0.1
COST_USD = (INPUT_TOKENS * 3.0 + OUTPUT_TOKENS * 15.0) / 1_000_000
SCRIPT = [
    [text("I begin."), use("Write", file_path="/workspace/made.txt", content="made before\n")],
    [use("Bash", command="rm readme.txt && echo 'price = 2' > src/shop.py")],
    [text("Held, and never heard.")],  # Claude Code, resumed, says a word of its own in this place
    [use("Bash", command="cat made.txt src/shop.py && ls && echo more >> made.txt")],
    [text("All is done.")],
]


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
        """With Claude Code beside it."""
        servers, key = self.folder / f"{name}.json", self.folder / "key"
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
        ours = {"sidecars": {"claude_code": agent}, "projects": {"shop": {"git": self.project}}}
        servers.write_text(json.dumps({"mcpServers": {}, "mcpfleet": ours}))
        await self.start(
            name,
            *("worker.cli", "run", "--name", name, "--servers", str(servers)),
            MCPFLEET_NODE_ORCHESTRATOR_URL=self.url,
            MCPFLEET_NODE_JOIN_TOKEN=self.join_token,
            MCPFLEET_NODE_STATE_DIR=str(self.folder / name),
        )

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


@pytest.fixture
def model() -> MessagesDouble:
    """It is slow, as models are: after each edit it waits until it is told to answer."""
    made = MessagesDouble(SCRIPT)
    made.holds |= {1, 2}
    return made


@pytest.fixture
async def fleet(tmp_path: Path, redis_url: str, model: MessagesDouble) -> AsyncIterator[Fleet]:
    """Two nodes, either of which can run it; ended whatever happens."""
    rig = Rig(tmp_path)
    rig.begin()
    async with serving(model.app) as model_url:
        made = Fleet(tmp_path, redis_url, model_url, str(rig.remote))
        try:
            await made.start_orchestrator()
            for name in ("a1", "b1"):
                await made.start_node(name)

            async def is_offered() -> bool:
                return await made.nodes_of("claude_code.run") == len(made.running) - 1

            await made.until(is_offered, "both nodes offer the agent")
            yield made
        finally:
            for process in made.running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            for home in tmp_path.rglob("sidecars/claude_code"):
                forget_groups(home)


async def test_a_session_goes_on_elsewhere_when_its_machine_dies(fleet: Fleet, model: MessagesDouble) -> None:
    """Edited on one node, killed -9 with it, ended on the other: one patch, one conversation, one bill."""
    arguments = {"prompt": "remember the word plum", "allowed_tools": ["Bash", "Write"], "max_turns": 9}
    call = await fleet.post("/v1/invocations", {"tool": "claude_code.run", "project": "shop", "arguments": arguments})
    path = f"/v1/invocations/{call['id']}"
    await fleet.until(lambda: fleet.capsule_of(call["id"]), "a capsule of the first edit is in the ledger")
    model.holds.remove(1)
    saved = await fleet.until(lambda: fleet.capsule_of(call["id"], 2), "one of both edits is there")
    await fleet.until(lambda: fleet.blobs() == [saved], "the one before is released")
    (first,) = (await fleet.get(path))["attempts"]
    family = await fleet.kill(first["node"])
    assert psutil.wait_procs(family, WITHIN_S)[1] == []  # the run died with its node
    asked = len(model.requests)
    model.holds.clear()

    async def ended() -> dict[str, Any] | None:
        view = await fleet.get(path)
        return view if view["ended_at"] else None

    view = await fleet.until(ended, "the call has ended")
    assert view["state"] == "succeeded", (view, fleet.logs())
    assert [(each["fence"], each["ending"]) for each in view["attempts"]] == [(1, "superseded"), (2, "succeeded")]
    assert view["attempts"][1]["node"] not in {None, first["node"]}
    conversation = str(model.requests[asked]["messages"])
    assert "plum" in conversation
    assert "made before" in conversation
    assert "You were interrupted" in conversation
    answer = view["result"]["structuredContent"]
    assert (answer["ending"], answer["resumed"], answer["resumed_from"]) == ("succeeded", 1, [first["node"]])
    for line in ("+made before", "+more", "+price = 2", "deleted file mode"):
        assert line in answer["patch"]
    assert answer["files"] == 3
    assert (answer["turns"], answer["cost_usd"]) == (4, pytest.approx(4 * COST_USD))
    assert fleet.capsule_of(call["id"]) is None

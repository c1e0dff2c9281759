"""A real node with the real Claude Code beside it, a model that costs nothing, and what the kernel says of them.

The orchestrator is the worker's own test double: what is measured is the node. Ends all that it starts.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from starlette.types import Receive, Scope, Send

from benchmarks.processes import BYTES_PER_MB, ROOT, Broker
from orchestrator.testing.serving import serving
from tasks.ids import new_id
from tasks.invocation import Lane
from worker.confines.groups import family_name
from worker.confines.hierarchies import found
from worker.sidecars.claude_code import ENVIRON
from worker.testing.fake_orchestrator import FakeOrchestrator
from worker.testing.messages_double import MessagesDouble, text, use
from worker.testing.node_process import NodeUnderTest, node_process

AGENTS = ROOT / ".cache/agents/node_modules/@anthropic-ai"
BINARY = AGENTS / "claude-code-linux-x64/claude"
NAP_S = 90
WORKS = [[use("Bash", command="echo done > work.txt")], [text("It is done.")]]
NAP = f"import time; time.sleep({NAP_S})"
"""Claude Code refuses to start a bare `sleep`."""
NAPS = [[use("Bash", command=f"python3 -c {NAP!r}")], [text("It is done.")]]
PROMPT = "do it"
MODEL = "claude-sonnet-5"
RUN_S = 300.0


class Model:
    """The double, and when it was asked first."""

    def __init__(self) -> None:
        self.double = MessagesDouble(WORKS)
        self.first_s: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the time, and pass on."""
        if scope["type"] == "http" and scope["path"] == "/v1/messages" and self.first_s is None:
            self.first_s = time.monotonic()
        await self.double.app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Took:
    """One run. Seconds."""

    first_s: float
    """From asking for it until the model was asked."""
    all_s: float
    """Until its answer was there."""


@dataclass(slots=True)
class Rig:
    """What is up."""

    node: NodeUnderTest
    fake: FakeOrchestrator
    model: Model
    url: str
    home: Path
    failed: list[str] = field(default_factory=list)

    def _first_s(self) -> float:
        """When the model was asked; later than everything, where it was not."""
        return float("inf") if self.model.first_s is None else self.model.first_s

    async def ask(self) -> str:
        """One run, through Celery, as the fleet sends it."""
        arguments = json.dumps({"prompt": PROMPT, "allowed_tools": ["Bash"]})
        delivery = self.fake.delivery("claude_code.run", arguments, lane=Lane.AGENTS, timeout_s=RUN_S)
        return await self.fake.send(delivery)

    async def ours(self) -> Took:
        """One run, by the node."""
        self.model.first_s, began_s = None, time.monotonic()
        await self.until_ended(await self.ask())
        return Took(self._first_s() - began_s, time.monotonic() - began_s)

    async def bare(self) -> Took:
        """The same by `claude -p`, outside of any sandbox."""
        with tempfile.TemporaryDirectory() as home:
            work = Path(home, "work")
            await asyncio.to_thread(work.mkdir)
            environ = {
                **ENVIRON,
                "HOME": home,
                "PATH": os.defpath,
                "ANTHROPIC_BASE_URL": self.url,
                "ANTHROPIC_API_KEY": "not-a-secret",
            }
            words = ("-p", PROMPT, "--output-format", "json", "--model", MODEL, "--allowedTools", "Bash")
            self.model.first_s, began_s = None, time.monotonic()
            process = await asyncio.create_subprocess_exec(
                BINARY, *words, cwd=work, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
            )
            said, _ = await process.communicate()
            ended_s = time.monotonic()
            if process.returncode != 0 or "work.txt" not in os.listdir(work):  # noqa: PTH208 - a folder of one file
                self.failed.append(f"claude -p: {said[-300:]!r}")
            return Took(self._first_s() - began_s, ended_s - began_s)

    async def until_ended(self, invocation: str) -> None:
        """Until it has; a bad end is noted."""
        async with asyncio.timeout(RUN_S):
            while not self.fake.finished(invocation):  # noqa: ASYNC110 - a test's own wait gives up sooner
                await asyncio.sleep(0.002)
        outcome = self.fake.finished(invocation)[0].outcome
        if outcome.ending != "succeeded" or '"isError":true' in (outcome.result_json or ""):
            self.failed.append(f"{invocation}: {outcome.error or outcome.result_json}")

    def sandboxes(self) -> list[psutil.Process]:
        """All that the node's runs started."""
        return psutil.Process(self.node.process.pid).children(recursive=True)

    def napping(self) -> int:
        """Runs that are in the middle of their command."""
        return sum(_words(process)[-2:] == ["-c", NAP] for process in self.sandboxes())

    def left(self) -> dict[str, int]:
        """What there is of runs now."""
        pid = self.node.process.pid
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        places = [folder for name in ("scratch", "runs") for folder in (self.home / name).iterdir()]
        return {
            "processes": len(self.sandboxes()),
            "control groups": len(self._groups(pid)),
            "mounts": len(mounts),
            "folders and files": len(places),
            "open files of the node": len(list(Path(f"/proc/{pid}/fd").iterdir())),
            "threads of the node": psutil.Process(pid).num_threads(),
        }

    def _groups(self, pid: int) -> list[Path]:
        here = found(Path(f"/proc/{pid}/mountinfo").read_text(), Path(f"/proc/{pid}/cgroup").read_text())
        name = family_name(self.home)
        return [group for each in here for base in each.root.rglob(name) for group in base.iterdir() if group.is_dir()]


def pss_mb(processes: list[psutil.Process]) -> float:
    """What they use together, what they share counted once."""
    total = 0.0
    for process in processes:
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / BYTES_PER_MB


def programs(processes: list[psutil.Process]) -> Counter[str]:
    """By name."""
    return Counter(Path(words[0]).name for process in processes if (words := _words(process)))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def version() -> str:
    """Of the Claude Code that is installed."""
    return str(json.loads((AGENTS / "claude-code-linux-x64/package.json").read_text())["version"])


def _forget_groups(home: Path) -> None:
    """The node is killed, so the empty folder of its runs' groups stays until its next start, which never comes."""
    here = found(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    for each in here:
        for base in each.root.rglob(family_name(home)):
            base.rmdir()


@asynccontextmanager
async def rig(folder: Path, broker: Broker, slots: int) -> AsyncIterator[Rig]:
    """Up and joined."""
    (folder / "key").write_text("not-a-secret")
    model, name = Model(), "a1"
    async with FakeOrchestrator(broker.url).serving() as fake, serving(model) as url:
        entry: Mapping[str, object] = {
            "kind": "claude_code",
            "binary": str(BINARY),
            "version": version(),
            "key_file": str(folder / "key"),
            "url": url,
            "model": MODEL,
        }
        servers = folder / "servers.json"
        servers.write_text(json.dumps({"mcpServers": {}, "mcpfleet": {"sidecars": {"claude_code": entry}}}))
        further = {"MCPFLEET_NODE_SERVERS": str(servers), "MCPFLEET_NODE_SLOTS_AGENTS": str(slots)}
        state = folder / f"state-{new_id()}"
        async with node_process(fake, state, os.environ, further=further) as node:
            await node.health_until(lambda view: "claude_code" in str(view["servers"]))
            home = state / name / "sidecars/claude_code"
            yield Rig(node, fake, model, url, home)
        _forget_groups(home)

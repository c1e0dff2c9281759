"""What tests of ACP agents need: a sidecar as the node has it, an agent of a script or a real one, a model's double."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from orchestrator.testing.serving import serving
from tasks.clock import SystemClock
from tasks.tool import ToolPolicy
from tests.contract.agents import lends_nothing
from worker.sidecars.agent_server import AgentServer
from worker.sidecars.assemble import agent_server
from worker.sidecars.sidecars_file import parse_sidecars
from worker.testing.chat_double import ChatDouble, Step
from worker.upstreams.upstream import Approver, Ask
from worker.workspaces.names import Project

KEY = "not-a-secret"
WAIT_S = 90.0
ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "worker/testing/scripted_acp_agent.py"
PRICES = {"glm-5": {"input": 1.0, "output": 3.2, "cache_read": 0.2}}
ONE_ANSWER_USD = (600 * 1.0 + 400 * 0.2 + 50 * 3.2) / 1_000_000
"""Of the double: 1,000 tokens in, 400 of them cached, 50 out."""


@dataclass(slots=True)
class AcpBench:
    """A sidecar, and the model behind it."""

    server: AgentServer
    model: ChatDouble
    folder: Path
    lines: list[str] = field(default_factory=list)
    approver: Approver | None = None

    async def call(
        self, prompt: str = "do it", *, invocation: str = "inv-1", project: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """One run; the CallToolResult."""
        tell = lambda _done, _total, line: self.lines.append(line or "")  # noqa: E731 - as the others have it
        ask = Ask(invocation, None, None, tell, project, approver=self.approver)
        async with asyncio.timeout(WAIT_S):
            answer: dict[str, Any] = orjson.loads(await self.server.call("run", {"prompt": prompt, **more}, ask))
        return answer

    async def until_line(self, part: str) -> None:
        """Until progress holds it."""
        async with asyncio.timeout(WAIT_S):
            while not any(part in line for line in self.lines):  # noqa: ASYNC110 - lines come by callback
                await asyncio.sleep(0.01)

    def processes(self) -> list[str]:
        """Whose command line names this bench's folder: sandboxes, and all that lives in them has such a parent."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if str(self.folder) in line:
                    found.append(line)
        return found


@asynccontextmanager
async def bench(
    folder: Path, entry: Mapping[str, Any], script: Sequence[Step] = (), projects: Mapping[str, Project] | None = None
) -> AsyncIterator[AcpBench]:
    """`entry` is what is in the servers file, beside what every one has."""
    model = ChatDouble(script)
    (folder / "key").write_text(KEY + "\n")
    async with serving(model.app) as url:
        said = {
            "kind": "acp",
            "url": f"{url}/v1",
            "api": "openai",
            "key_file": str(folder / "key"),
            "model": "glm-5",
            "prices": PRICES,
        }
        server = agent_server(
            "agent",
            parse_sidecars({"agent": said | dict(entry)}, "test")["agent"],
            lambda: None,
            state=folder / "state",
            projects=projects or {},
            policy_of=lambda _: ToolPolicy(),
            clock=SystemClock(),
            lend=lends_nothing,
        )
        await server.start()
        try:
            yield AcpBench(server, model, folder)
        finally:
            await server.close()


@asynccontextmanager
async def scripted(folder: Path, steps: Sequence[Mapping[str, Any]] = (), **more: Any) -> AsyncIterator[AcpBench]:
    """An agent that does these steps for its prompt. `agent`: what else its script says; `script`: the model's."""
    projects = more.pop("projects", None)
    about = {"steps": list(steps)} | more.pop("agent", {})
    given = folder / "agent"
    given.mkdir(exist_ok=True)
    (given / "script.json").write_text(json.dumps(about))
    (given / "agent.py").write_bytes(AGENT.read_bytes())
    entry = {
        "command": ["python3", "/opt/agent/agent.py", "/opt/agent/script.json"],
        "read_only": {str(given): "/opt/agent"},
        "environ": {"MODEL_URL": "{base_url}", "MODEL_KEY": "{token}"},
        "sessions": [".scripted"],
    }
    async with bench(folder, entry | more, more.pop("script", ()), projects) as made:
        yield made


def do(name: str, **more: Any) -> dict[str, Any]:
    """A step of the scripted agent."""
    return {"do": name, **more}

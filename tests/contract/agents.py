"""What tests of agents need: the real Claude Code, and a model API on loopback that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from mcp.server.lowlevel import Server

from orchestrator.testing.serving import serving
from tasks.clock import SystemClock
from tasks.tool import ToolPolicy
from tests.contract.claude_binary import BINARY, VERSION
from worker.sidecars.agent_server import AgentServer
from worker.sidecars.assemble import agent_server
from worker.sidecars.guard_line import Borrower
from worker.sidecars.lent import Lend
from worker.sidecars.sidecars_file import parse_sidecars
from worker.testing.messages_double import MessagesDouble
from worker.upstreams.upstream import Approver, Ask, Keeping
from worker.workspaces.names import Project

KEY = "not-a-secret"
WAIT_S = 90.0


@dataclass(slots=True)
class Bench:
    """A sidecar as the node has it, and the model behind it."""

    server: AgentServer
    model: MessagesDouble
    folder: Path
    lines: list[str] = field(default_factory=list)
    changes: list[None] = field(default_factory=list)
    approver: Approver | None = None

    async def call(
        self,
        prompt: str = "do it",
        *,
        invocation: str = "inv-1",
        project: str | None = None,
        keeping: Keeping | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """One run; the CallToolResult."""
        ask = Ask(
            invocation,
            None,
            None,
            lambda _done, _total, line: self.lines.append(line or ""),
            project,
            keeping=keeping,
            approver=self.approver,
        )
        async with asyncio.timeout(WAIT_S):
            answer: dict[str, Any] = orjson.loads(await self.server.call("run", {"prompt": prompt, **more}, ask))
        return answer

    def sandboxes(self) -> list[str]:
        """Processes whose command line names this bench's folder."""
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


def lends_nothing(name: str, borrower: Borrower) -> Server[Any]:
    """Of a node without servers."""
    raise AssertionError(f"{borrower.project} has no server {name}")


@asynccontextmanager
async def bench(
    folder: Path,
    script: Sequence[Sequence[dict[str, Any]]],
    projects: Mapping[str, Project] | None = None,
    lend: Lend | None = None,
    **more: Any,
) -> AsyncIterator[Bench]:
    """`more` goes into the sidecar's lines of the servers file; without `lend` no project lends a server."""
    model = MessagesDouble(script)
    (folder / "key").write_text(KEY + "\n")
    async with serving(model.app) as url:
        said = {
            "kind": "claude_code",
            "binary": str(BINARY),
            "version": VERSION,
            "key_file": str(folder / "key"),
            "url": url,
            "model": "claude-sonnet-5",
            "prices": {"claude-sonnet": {"input": 3.0, "output": 15.0}},
        }
        entry = parse_sidecars({"claude_code": said | more}, "test")["claude_code"]
        changes: list[None] = []
        make = partial(
            agent_server, "claude_code", entry, state=folder / "state", projects=projects or {}, clock=SystemClock()
        )
        make = partial(make, lend=lend or lends_nothing)
        server = make(projects=projects or {}, on_change=lambda: changes.append(None), policy_of=lambda _: ToolPolicy())
        await server.start()
        try:
            yield Bench(server, model, folder, changes=changes)
        finally:
            await server.close()

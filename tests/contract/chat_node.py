"""A chat model as a node has it, with a double of its API on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
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
from worker.testing.chat_double import ChatDouble
from worker.upstreams.upstream import Ask, Keeping
from worker.workspaces.names import Project

WAIT_S = 90.0
KEY = "not-a-secret"


@asynccontextmanager
async def glm(
    folder: Path, model: ChatDouble, projects: Mapping[str, Project] | None = None, **more: Any
) -> AsyncIterator[AgentServer]:
    """Started, with its key in a file. `more` goes into its lines of the servers file."""
    (folder / "key").write_text(KEY)
    async with serving(model.app) as url:
        said = {"kind": "openai_chat", "url": f"{url}/v1", "model": "glm-5", "key_file": str(folder / "key")} | more
        server = agent_server(
            "glm",
            parse_sidecars({"glm": said}, "test")["glm"],
            lambda: None,
            state=folder / "state",
            projects=projects or {},
            policy_of=lambda _: ToolPolicy(),
            clock=SystemClock(),
            lend=lends_nothing,
        )
        await server.start()
        try:
            yield server
        finally:
            await server.close()


async def called(
    server: AgentServer,
    tool: str,
    *,
    invocation: str = "inv-1",
    project: str | None = None,
    keeping: Keeping | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """The CallToolResult."""
    ask = Ask(invocation, None, None, lambda *_: None, project, keeping=keeping)
    async with asyncio.timeout(WAIT_S):
        answer: dict[str, Any] = orjson.loads(await server.call(tool, arguments, ask))
    return answer


async def run(server: AgentServer, **more: Any) -> dict[str, Any]:
    """One run of the agent."""
    return await called(server, "run", **{"prompt": "do it"} | more)

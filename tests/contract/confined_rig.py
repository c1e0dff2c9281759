"""A chat sidecar whose runs are limited, and whether this machine lets anybody limit them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from orchestrator.testing.serving import serving
from tasks.clock import SystemClock
from tasks.tool import ToolPolicy
from tests.contract.agents import lends_nothing
from worker.confines.groups import family, family_name
from worker.confines.hierarchies import Hierarchy, found
from worker.sidecars.agent_server import AgentServer
from worker.sidecars.assemble import agent_server
from worker.sidecars.sidecars_file import parse_sidecars
from worker.testing.chat_double import ChatDouble
from worker.upstreams.upstream import Ask

WAIT_S = 90.0
MEMORY_BYTES = 512 * 2**20
BOMB = "bomb() { bomb | bomb & }; bomb; sleep 1; sleep 1; ls"
"""The classic; what comes after it wants processes too."""
HOG = "python3 -c 'x = bytearray(900 << 20); print(len(x))'"


def _hierarchies() -> tuple[Hierarchy, ...]:
    return found(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())


def why_no_groups() -> str | None:
    """What keeps this machine's tests from real control groups."""
    made, why = family(_hierarchies(), family_name(Path(f"/tried-{os.getpid()}")))
    if made is None:
        return "; ".join(why) or "no control groups"
    made.close()
    missing = {"memory", "pids"} - made.controllers
    return f"no group limits {sorted(missing)}" if missing else None


needs_groups = pytest.mark.skipif(why_no_groups() is not None, reason=f"control groups: {why_no_groups()}")


def groups_of(home: Path) -> list[Path]:
    """Of this sidecar's runs, wherever they are mounted."""
    name = family_name(home)
    return [
        group for each in _hierarchies() for base in each.root.rglob(name) for group in base.iterdir() if group.is_dir()
    ]


def forget_groups(home: Path) -> None:
    """What a killed node leaves until its next start: its runs' groups, empty, and their folder."""
    for each in _hierarchies():
        for base in list(each.root.rglob(family_name(home))):
            for group in [path for path in base.iterdir() if path.is_dir()] + [base]:
                group.rmdir()


@asynccontextmanager
async def glm(folder: Path, model: ChatDouble, **more: Any) -> AsyncIterator[AgentServer]:
    """Started. `more` goes into its lines of the servers file."""
    async with serving(model.app) as url:
        said = {"kind": "openai_chat", "url": f"{url}/v1", "model": "glm-5"} | more
        server = agent_server(
            "glm",
            parse_sidecars({"glm": said}, "test")["glm"],
            lambda: None,
            state=folder / "state",
            projects={},
            policy_of=lambda _: ToolPolicy(),
            clock=SystemClock(),
            lend=lends_nothing,
        )
        await server.start()
        try:
            yield server
        finally:
            await server.close()


async def run(server: AgentServer, *, invocation: str = "inv-1", **arguments: Any) -> dict[str, Any]:
    """One; the CallToolResult."""
    ask = Ask(invocation, None, None, lambda *_: None)
    async with asyncio.timeout(WAIT_S):
        answer: dict[str, Any] = orjson.loads(await server.call("run", {"prompt": "do it", **arguments}, ask))
    return answer

"""What the tests of a node's servers share: servers made from a form, calls with defaults, bounded waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from mcp_types import Implementation
from starlette.types import ASGIApp

from tasks.clock import SystemClock
from tasks.outcome import ErrorInfo
from worker.upstreams.errors import UpstreamError
from worker.upstreams.life import Limits
from worker.upstreams.servers_file import parse_servers
from worker.upstreams.upstream import ServerStatus
from worker.upstreams.upstreams import Upstreams

WAIT_S = 40.0
ASK_EVERY_S = 0.02
CLIENT = Implementation(name="test", version="1")
SCRIPT = Path(__file__).with_name("scripted_server.py")


def quiet(*_: object) -> None:
    """Progress that nobody looks at."""


class Kit:
    """Some servers, started."""

    def __init__(self, upstreams: Upstreams) -> None:
        self.upstreams = upstreams

    async def call(self, tool: str, arguments: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - as `Upstreams.call`
        """The result, parsed."""
        given = {"timeout_s": WAIT_S, "meta": None, "invocation": "inv-1", "trace": None, "on_progress": quiet}
        async with asyncio.timeout(WAIT_S):
            text = await self.upstreams.call(tool, arguments or {}, **(given | more))
        result: dict[str, Any] = json.loads(text)
        return result

    async def refusal(self, tool: str, arguments: dict[str, Any] | None = None, **more: Any) -> ErrorInfo:  # noqa: ANN401
        """The error of a call that must fail."""
        try:
            result = await self.call(tool, arguments, **more)
        except UpstreamError as error:
            return error.info
        raise AssertionError(f"{tool} succeeded: {result}")

    def status(self, name: str) -> ServerStatus:
        """Of one server."""
        return next(status for status in self.upstreams.status() if status.name == name)

    def names(self) -> set[str]:
        """Of all tools offered now."""
        return {spec.name for spec in self.upstreams.tools()}


@contextlib.asynccontextmanager
async def running(
    form: dict[str, Any],
    *,
    limits: Limits | None = None,
    add: dict[str, Any] | None = None,
    start_wait_s: float = WAIT_S,
    draw: float = 0.0,
) -> AsyncIterator[Kit]:
    """The servers of a file, and ended again."""
    config = parse_servers(json.dumps(form), source="test", environ=dict(os.environ) | {"SECRET": "t0ken-of-mine"})
    upstreams = Upstreams(
        config, clock=SystemClock(), draw=lambda: draw, client_info=CLIENT, limits=limits, start_wait_s=start_wait_s
    )
    for name, server in (add or {}).items():
        upstreams.add_server(name, server)
    await upstreams.start()
    try:
        yield Kit(upstreams)
    finally:
        await upstreams.close()


def scripted(notes: Path, *options: str) -> dict[str, Any]:
    """An entry for the scripted server."""
    return {"command": sys.executable, "args": ["-S", str(SCRIPT), str(notes), *options], "env": {"S": "${SECRET}"}}


def noted(notes: Path, word: str) -> list[str]:
    """What the scripted server wrote after `word`."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [line.removeprefix(word + " ") for line in lines if line.startswith(word + " ")]


def is_alive(pid: int) -> bool:
    """It runs: a process that has ended and waits to be collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, not for a time."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), ASK_EVERY_S)


@contextlib.asynccontextmanager
async def served(app: ASGIApp, port: int = 0) -> AsyncIterator[int]:
    """An ASGI app on a loopback port; the port."""
    config = uvicorn.Config(app, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started or task.done())
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task

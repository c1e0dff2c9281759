"""A real Flower process on a Redis with users, and the real feed beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from orchestrator.observability.flower_feed import FlowerFeed
from orchestrator.redis_users import FLOWER_USER
from tasks.app import make_app
from tasks.clock import SystemClock
from tasks.invocation import Attempt, Call, Invocation, Lane, Principal, State
from tasks.node import NodeState, Visibility
from tasks.redis_tls import with_user
from tasks.wire import NodeView
from tests.security.redis_rig import Server, redis_server

WITHIN_S = 90.0
LATE_POOL = "swarm"


@dataclass
class Rig:
    """Both, and what the feed is told."""

    server: Server
    environ: dict[str, str]
    port: int
    login: tuple[str, str]
    past: list[Invocation] = field(default_factory=list)
    nodes: list[NodeView] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None

    @property
    def base(self) -> str:
        """Where Flower is."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start Flower and wait until it answers."""
        words = ("-P", "-m", "orchestrator.cli.main", "flower")
        self.process = await asyncio.create_subprocess_exec(sys.executable, *words, env=self.environ)
        await self.until("/healthcheck", lambda answer: answer.is_success)

    async def kill(self) -> None:
        """As the kernel does when memory is short."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def get(self, path: str, *, is_known: bool = True) -> httpx.Response:
        """One answer."""
        async with httpx.AsyncClient(timeout=WITHIN_S, trust_env=False) as http:
            return await http.get(f"{self.base}{path}", auth=self.login if is_known else None)

    async def until(self, path: str, is_so: Callable[[httpx.Response], Any]) -> httpx.Response:
        """Ask until the answer is right."""
        deadline, answer = time.monotonic() + WITHIN_S, None
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                answer = await self.get(path)
                if is_so(answer):
                    return answer
            await asyncio.sleep(0.2)
        raise AssertionError(f"{path} never was as expected; last: {answer and answer.text[:2000]}")


@contextlib.asynccontextmanager
async def flower_rig(folder: Path, *, is_tls: bool) -> AsyncIterator[Rig]:
    """Redis with its users, the feed and Flower, which logs in as the user made for it."""
    word, login = secrets.token_urlsafe(16), ("fleet", secrets.token_urlsafe(16))
    async with redis_server(folder, [], is_tls=is_tls, flower_password=word) as server:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MCPFLEET_")}
        environ |= {
            "MCPFLEET_FLOWER_REDIS_URL": with_user(server.bare_url, FLOWER_USER, word),
            "MCPFLEET_FLOWER_LOGIN": ":".join(login),
            "MCPFLEET_FLOWER_PORT": str(port),
        }
        files = {"CA": server.tls.ca, "CERT": server.tls.cert, "KEY": server.tls.key}
        environ |= {f"MCPFLEET_FLOWER_REDIS_{name}": str(path) for name, path in files.items() if path}
        rig = Rig(server, environ, port, login)
        feed = FlowerFeed(
            make_app(server.url),
            Redis.from_url(server.url),
            nodes=lambda: list(rig.nodes),
            is_late=lambda pool: pool == LATE_POOL,
            past=lambda: list(rig.past),
            leads=lambda: True,
            clock=SystemClock(),
        )
        feed.start()
        try:
            await rig.start()
            yield rig
        finally:
            await rig.kill()
            await asyncio.to_thread(feed.stop)


def call(name: str, *, node: str, ago_s: float, state: State = State.SUCCEEDED) -> Invocation:
    """One that ended a while ago, as the ledger lists it."""
    at = time.time() - ago_s
    attempt = Attempt(
        name, 1, node, "i", "general", Lane.TOOLS, "q", at, at + 0.5, at + 2.0, state.value,
        None if state is State.SUCCEEDED else "tool_error",
    )  # fmt: skip
    asked = Call("git.git_log", project="shop")
    return Invocation(
        name, asked, Principal("ada"), Lane.TOOLS, state, at, 1, 1, ended_at=at + 2.0, attempts=(attempt,)
    )


def node(name: str, pool: str = "general", state: NodeState = NodeState.ACTIVE) -> NodeView:
    """One that is up, unless said otherwise."""
    return NodeView(
        name=name, pool=pool, state=state, lease_left_s=5.0, slots={Lane.TOOLS: 8}, running={Lane.TOOLS: 3},
        outstanding={Lane.TOOLS: 3}, cpu=0.5, memory=0.25, capabilities=["git"], tools=4, location="", labels={},
        visibility=Visibility.PUBLIC, version="1.2.3", url="",
    )  # fmt: skip

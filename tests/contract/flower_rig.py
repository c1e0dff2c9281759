"""A real Flower process on a Redis, with users where it is ours, and the real feed beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from orchestrator.observability.flower_feed import FlowerFeed
from orchestrator.redis_users import FLOWER_USER
from tasks.app import make_app
from tasks.clock import SystemClock
from tasks.invocation import Attempt, Call, Invocation, Lane, Principal, State
from tasks.node import NodeState, Visibility
from tasks.redis_clients import sync_client
from tasks.redis_tls import with_user
from tasks.wire import NodeView
from tests.security.redis_rig import redis_server

WITHIN_S = 90.0
LATE_POOL = "swarm"
DOOR = (("CERT", "pem"), ("KEY", "key"))


@dataclass
class Rig:
    """Both, and what the feed is told."""

    url: str
    """Of Redis, as the feed has it."""
    environ: dict[str, str]
    port: int
    login: tuple[str, str]
    ca: Path | None
    """Who signed the certificate of Flower's door; None: it speaks plain HTTP."""
    past: list[Invocation] = field(default_factory=list)
    nodes: list[NodeView] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None

    @property
    def base(self) -> str:
        """Where Flower is."""
        return f"{'https' if self.ca else 'http'}://127.0.0.1:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext | bool:
        """What its door's certificate is believed by."""
        return ssl.create_default_context(cafile=str(self.ca)) if self.ca else True

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
        async with httpx.AsyncClient(timeout=WITHIN_S, trust_env=False, verify=self.trust) as http:
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
    word = secrets.token_urlsafe(16)
    async with redis_server(folder, [], is_tls=is_tls, flower_password=word) as server:
        files = {"CA": server.tls.ca, "CERT": server.tls.cert, "KEY": server.tls.key}
        more = {f"REDIS_{name}": str(path) for name, path in files.items() if path}
        if is_tls:  # its own door, too
            more |= {f"TLS_{name}": str(folder / f"server.{end}") for name, end in DOOR}
        own = with_user(server.bare_url, FLOWER_USER, word)
        async with flower_on(server.url, own, ca=server.tls.ca, **more) as rig:
            yield rig


@contextlib.asynccontextmanager
async def flower_on(url: str, own_url: str, *, ca: Path | None = None, **settings: str) -> AsyncIterator[Rig]:
    """The feed at one address of a Redis, Flower at another; `settings` are its own, without their prefix."""
    login = ("fleet", secrets.token_urlsafe(16))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"REDIS_URL": own_url, "LOGIN": ":".join(login), "PORT": str(port)} | settings
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MCPFLEET_")}
    rig = Rig(url, environ | {f"MCPFLEET_FLOWER_{name}": value for name, value in own.items()}, port, login, ca)
    redis = sync_client(url, answer_s=WITHIN_S)
    feed = FlowerFeed(
        make_app(url),
        redis,
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
        redis.close()


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

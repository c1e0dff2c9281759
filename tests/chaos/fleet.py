"""A real fleet that can be hurt: Redis, an orchestrator and nodes, each a process that is kept running.

Whatever ends is started again, as an init system would; a fault says how long it stays away. Owns
processes and files in one folder; refuses to know what the faults are.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx
from redis.asyncio import Redis

from orchestrator.local.guard import birth, descendants
from orchestrator.local.redis_server import RedisPlace, find_server, settings_text
from orchestrator.testing.postgres import Cluster
from tasks.redis_clients import async_client
from tests.chaos.ground import Ground
from tests.chaos.sentinel import SentinelSet
from tests.chaos.terms import Terms

EFFECTS_SERVER = Path(__file__).with_name("effects_server.py")
REDIS = "redis"
PORTS = range(15_000, 32_000)
"""Below the ports that outgoing connections get: a port stays ours while its server is away."""
KEEP_EVERY_S = 0.1
BACK_AFTER_S = 0.5
STOPS_WITHIN_S = 40.0
TOOL_TIMEOUT_S = 4.0
SLOTS = 4


@dataclass
class Kept:
    """A process that is meant to run."""

    command: list[str]
    environ: dict[str, str]
    stdin: str | None = None
    folder: Path = Path()
    process: asyncio.subprocess.Process | None = None
    log: TextIO | None = None
    not_before: float = 0.0
    starts: int = 0

    @property
    def pid(self) -> int | None:
        """While it lives."""
        return None if self.process is None or self.process.returncode is not None else self.process.pid


@dataclass
class Fleet:
    """Everything of one run, in one folder."""

    folder: Path
    node_names: tuple[str, ...]
    database: Cluster | str | None = None
    """Of the ledger: PostgreSQL, running, to be hurt; or a URL; SQLite in the folder where absent."""
    replicas: int = 1
    """Orchestrators; one leads, callers ask any."""
    ground: Ground = field(default_factory=Ground)
    is_sentinel: bool = False
    """Redis is a Sentinel set instead of one server."""
    terms: Terms = field(default_factory=Terms)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    join_token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    captured: list[tuple[str, bytes]] = field(default_factory=list)
    """Deliveries seen on their way, to be played again: queue and message."""

    def __post_init__(self) -> None:
        self.redis_place = RedisPlace(_free_port(), secrets.token_urlsafe(16), self.ground.host)
        names = [f"o{number}" for number in range(1, self.replicas + 1)]
        self.orchestrators = {name: f"http://{self.ground.host}:{_free_port()}" for name in names}
        self._doors = itertools.cycle(self.orchestrators.values())
        self.marks = self.folder / "marks.jsonl"
        self.marks.touch()
        self.ledger_folder.mkdir(exist_ok=True)
        self.sentinels = SentinelSet(self.folder, _redis_binary(), _free_port) if self.is_sentinel else None
        self.kept: dict[str, Kept] = self._redis_set() if self.sentinels else {REDIS: self._redis()}
        self.redis_names = tuple(self.kept)
        self.kept |= {name: self._orchestrator(name) for name in self.orchestrators}
        self.kept |= {name: self._node(name) for name in self.node_names}
        self._keeping: asyncio.Task[None] | None = None
        head = {"Authorization": f"Bearer {self.token}"}
        self._http = httpx.AsyncClient(headers=head, timeout=30, trust_env=False)

    # ------------------------------------------------------------------------------ life

    async def start(self) -> None:
        """Everything, until every node is a member and offers the tools."""
        self._keeping = asyncio.create_task(self._keep())
        await self.healed(within_s=120)

    async def started(self, kept: Kept) -> None:
        """One process alone, without a fleet around it."""
        await self._start(kept)

    async def close(self) -> None:
        """Nodes leave first; what does not end is killed."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        for names in (self.node_names, self.orchestrators, self.redis_names):
            await asyncio.gather(*(self._end(self.kept[name]) for name in names))
        await self._http.aclose()

    async def ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        """One request at the next orchestrator in turn, whoever leads."""
        return await self._http.request(method, next(self._doors) + path, **how)

    async def answers(self, name: str) -> bool:
        """This orchestrator does, itself or through the one that leads."""
        try:
            return (await self._http.get(f"{self.orchestrators[name]}/health", timeout=1.0)).is_success
        except httpx.HTTPError:
            return False

    async def node_states(self) -> dict[str, str]:
        """Of the nodes that the orchestrator knows; none while it does not answer."""
        try:
            nodes = (await self.ask("GET", "/v1/nodes", timeout=5.0)).raise_for_status().json()["items"]
        except (httpx.HTTPError, ValueError):
            return {}
        return {node["name"]: node["state"] for node in nodes}

    async def healed(self, within_s: float) -> None:
        """Until all nodes are active and offer what they have."""
        async with asyncio.timeout(within_s):
            while not await self._is_whole():  # noqa: ASYNC110 - other processes give no event
                await asyncio.sleep(KEEP_EVERY_S)

    async def _is_whole(self) -> bool:
        try:
            tools = (await self.ask("GET", "/v1/tools")).raise_for_status().json()["items"]
        except (httpx.HTTPError, ValueError):
            return False
        active = {name for name, state in (await self.node_states()).items() if state == "active"}
        offered = {tool["name"]: tool["nodes"] for tool in tools}
        return active == set(self.node_names) and offered.get("effects.apply") == len(self.node_names)

    # ------------------------------------------------------------------------------ hurting it

    async def kill(self, name: str, away_s: float = BACK_AFTER_S, *, is_disk_lost: bool = False) -> None:
        """The machine is gone at once, with all that ran on it; it comes back later."""
        kept = self.kept[name]
        kept.not_before = time.monotonic() + away_s
        await self._kill(kept)
        if is_disk_lost:
            shutil.rmtree(kept.folder, ignore_errors=True)  # the folder itself stays where it is a disk
            kept.folder.mkdir(exist_ok=True)

    async def stop(self, name: str) -> None:
        """SIGTERM, and it comes back after it ended."""
        kept = self.kept[name]
        process = kept.process
        if kept.pid is not None and process is not None:
            process.terminate()
            await process.wait()

    def pause(self, name: str) -> list[int]:
        """SIGSTOP for the process and all it started; answers whom to wake."""
        pid = self.kept[name].pid
        frozen = [] if pid is None else [pid, *descendants(pid)]
        for each in frozen:
            _signal(each, signal.SIGSTOP)
        return frozen

    @staticmethod
    def resume(frozen: list[int]) -> None:
        """SIGCONT."""
        for each in frozen:
            _signal(each, signal.SIGCONT)

    def kill_servers(self, name: str) -> int:
        """The MCP servers of one node; how many."""
        pid = self.kept[name].pid
        found = [] if pid is None else list(descendants(pid))
        for each in found:
            _signal(each, signal.SIGKILL)
        return len(found)

    def redis(self) -> Redis:
        """A client; the caller closes it."""
        return async_client(self.redis_url, retries=1, answer_s=2.0)

    @property
    def redis_url(self) -> str:
        """As the fleet is told it."""
        return self.sentinels.url if self.sentinels else self.redis_place.url

    # ------------------------------------------------------------------------------ processes

    async def _keep(self) -> None:
        while True:
            for kept in self.kept.values():
                if kept.pid is None and time.monotonic() >= kept.not_before:
                    await self._start(kept)
            await asyncio.sleep(KEEP_EVERY_S)

    async def _start(self, kept: Kept) -> None:
        kept.folder.mkdir(exist_ok=True, parents=True)
        kept.log = kept.log or (self.folder / f"{kept.folder.name}.log").open("a")
        kept.not_before = time.monotonic() + BACK_AFTER_S
        kept.starts += 1
        kept.process = await asyncio.create_subprocess_exec(
            *self.ground.command(kept.folder.name, kept.command),
            env=kept.environ,
            cwd=kept.folder,
            stdin=asyncio.subprocess.DEVNULL if kept.stdin is None else asyncio.subprocess.PIPE,
            stdout=kept.log,
            stderr=kept.log,
            start_new_session=True,
        )
        if kept.stdin is not None:
            _feed(kept.process, kept.stdin)

    async def _kill(self, kept: Kept) -> None:
        pid = kept.pid
        if pid is None or kept.process is None:
            return
        family = descendants(pid)
        _signal(pid, signal.SIGKILL)
        for each, born in family.items():
            if birth(each) == born:
                _signal(each, signal.SIGKILL)
        await kept.process.wait()

    async def _end(self, kept: Kept) -> None:
        if kept.pid is not None and kept.process is not None:
            kept.process.terminate()
            try:
                async with asyncio.timeout(STOPS_WITHIN_S):
                    await kept.process.wait()
            except TimeoutError:
                await self._kill(kept)
        if kept.log is not None:
            kept.log.close()

    # ------------------------------------------------------------------------------ what each is started with

    def _redis(self) -> Kept:
        folder = self.folder / REDIS
        return Kept([_redis_binary(), "-"], _environ(), settings_text(self.redis_place, folder), folder)

    def _redis_set(self) -> dict[str, Kept]:
        assert self.sentinels is not None
        found = self.sentinels
        return {name: Kept(found.command(name), _environ(), folder=found.folder_of(name)) for name in found.ports}

    def _orchestrator(self, name: str) -> Kept:
        return Kept(
            [sys.executable, "-P", "-m", *self.ground.module(name, "orchestrator.cli.main"), "serve"],
            _environ(
                MCPFLEET_DATABASE_URL=self._ledger_url(),
                MCPFLEET_REDIS_URL=self.redis_url,
                MCPFLEET_BLOB_DIR=str(self.ledger_folder / "blobs"),
                MCPFLEET_TOKEN=self.token,
                MCPFLEET_JOIN_TOKEN=self.join_token,
                MCPFLEET_HOST=self.ground.host,
                MCPFLEET_PORT=self.orchestrators[name].rsplit(":", 1)[1],
                MCPFLEET_FLOWER_FEED="false",
                **self.terms.environ,
            ),
            folder=self.folder / name,
        )

    def _node(self, name: str) -> Kept:
        folder = self.folder / name
        server = {"command": sys.executable, "args": ["-S", str(EFFECTS_SERVER), str(self.marks)]}
        form: dict[str, Any] = {
            "mcpServers": {"effects": server},
            "mcpfleet": {"tools": {"effects.*": {"timeout_s": TOOL_TIMEOUT_S}}},
        }
        servers = self.folder / f"{name}.servers.json"
        servers.write_text(json.dumps(form))
        words = ["run", "--name", name, "--servers", str(servers), "--slots-tools", str(SLOTS)]
        return Kept(
            [sys.executable, "-P", "-m", *self.ground.module(name, "worker.cli"), *words],
            _environ(
                MCPFLEET_NODE_ORCHESTRATOR_URL=",".join(self.orchestrators.values()),
                MCPFLEET_NODE_JOIN_TOKEN=self.join_token,
                MCPFLEET_NODE_STATE_DIR=str(folder),
                MCPFLEET_NODE_DRAIN_S="2",
            ),
            folder=folder,
        )

    def _ledger_url(self) -> str:
        if self.database is None:
            return f"sqlite:///{self.ledger_file}"
        return self.database.url if isinstance(self.database, Cluster) else self.database

    @property
    def ledger_folder(self) -> Path:
        """Of SQLite, and of large payloads."""
        return self.folder / "ledger"

    @property
    def ledger_file(self) -> Path:
        """Of SQLite."""
        return self.ledger_folder / "ledger.db"


def _environ(**ours: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")} | ours


def _redis_binary() -> str:
    return find_server(os.environ.get("PATH", ""))


def _feed(process: asyncio.subprocess.Process, text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.close()


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port

"""A real Sentinel set: one master, two replicas, three sentinels, each a process on loopback.

Owns their configuration files, names and addresses; `fleet.py` runs the processes as it does all others.
Whoever is the master now is asked of the sentinels, never remembered.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from orchestrator.local.redis_server import RedisPlace, settings_text
from tasks.redis_clients import sync_client
from tasks.redis_url import parse
from tasks.sentinel import ask

MASTER = "fleet"
"""The set's name, as the sentinels know it."""
DATA = ("redis-1", "redis-2", "redis-3")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
QUORUM = 2
DOWN_AFTER_MS, FAILOVER_WITHIN_MS = 1500, 5000
POLL_S = 0.1


class SentinelSet:
    """Six servers' files in one folder."""

    def __init__(self, folder: Path, binary: str, free_port: Callable[[], int]) -> None:
        self._folder, self._binary = folder, binary
        self._password, self._sentinel_password = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        self.ports = {name: free_port() for name in (*DATA, *SENTINELS)}
        hosts = ",".join(f"127.0.0.1:{self.ports[name]}" for name in SENTINELS)
        self.url = f"sentinel://:{self._password}@{hosts}/{MASTER}/0?sentinel_password={self._sentinel_password}"

    def folder_of(self, name: str) -> Path:
        """Of one server."""
        return self._folder / name

    def command(self, name: str) -> list[str]:
        """How to start one; writes its first configuration, which it then rewrites itself."""
        folder = self.folder_of(name)
        file = folder / "server.conf"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_text(self._sentinel(name, folder) if name in SENTINELS else self._data(name, folder))
        return [self._binary, str(file), *(["--sentinel"] if name in SENTINELS else [])]

    def master(self) -> str | None:
        """The name of the server that is the master now; None while there is none."""
        found = parse(self.url)
        assert found is not None
        known = ask(found).master
        return next((name for name in DATA if known is not None and self.ports[name] == known[1]), None)

    def is_whole(self) -> bool:
        """One master, two replicas in step with it, and every sentinel knows all of them."""
        found = parse(self.url)
        assert found is not None
        try:
            for port in (self.ports[name] for name in SENTINELS):
                with Redis(port=port, password=self._sentinel_password, socket_timeout=1.0) as sentinel:
                    state: Any = sentinel.sentinel_master(MASTER)
                    if (state["num-slaves"], state["num-other-sentinels"], state["flags"]) != (2, 2, "master"):
                        return False
            with sync_client(self.url, answer_s=1.0) as master:
                facts: Any = master.info("replication")
        except (RedisError, OSError):
            return False
        return sum(facts.get(f"slave{number}", {}).get("state") == "online" for number in range(2)) == 2

    async def failed_over(self, before: str | None, within_s: float) -> str:
        """The new master, once there is another one than `before`. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while (now := await asyncio.to_thread(self.master)) in (None, before):  # noqa: ASYNC110 - other processes give no event
                await asyncio.sleep(POLL_S)
        assert now is not None
        return now

    async def healed(self, within_s: float) -> None:
        """Until it is whole. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not await asyncio.to_thread(self.is_whole):  # noqa: ASYNC110 - as above
                await asyncio.sleep(POLL_S)

    def order_failover(self) -> None:
        """As an operator does it: the master lives, and another takes over."""
        with Redis(port=self.ports[SENTINELS[0]], password=self._sentinel_password, socket_timeout=2.0) as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", MASTER)

    def place(self, name: str) -> RedisPlace:
        """Of one data node, past the sentinels."""
        return RedisPlace(self.ports[name], self._password)

    def _data(self, name: str, folder: Path) -> str:
        lines = [
            settings_text(self.place(name), folder),
            f"masterauth {self._password}",
            "repl-diskless-sync-delay 0",
        ]
        if name != DATA[0]:
            lines.append(f"replicaof 127.0.0.1 {self.ports[DATA[0]]}")
        return "\n".join((*lines, ""))

    def _sentinel(self, name: str, folder: Path) -> str:
        lines = (
            "bind 127.0.0.1",
            f"port {self.ports[name]}",
            f'dir "{folder}"',
            f"requirepass {self._sentinel_password}",
            f"sentinel sentinel-pass {self._sentinel_password}",
            f"sentinel monitor {MASTER} 127.0.0.1 {self.ports[DATA[0]]} {QUORUM}",
            f"sentinel auth-pass {MASTER} {self._password}",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER} {FAILOVER_WITHIN_MS}",
            f"sentinel parallel-syncs {MASTER} 2",
        )
        return "\n".join((*lines, ""))

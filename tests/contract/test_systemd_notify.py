"""What a node tells systemd, over a real datagram socket, and what its machine's dead-man reads."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from worker.systemd import Supervisor, supervisor_of
from worker.testing.fake_orchestrator import FakeOrchestrator
from worker.testing.node_process import node_process

HEARS_WITHIN_S = 20.0


class Listener:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[str] = []
        self._wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._wire.bind("\0" + address[1:] if address.startswith("@") else address)
        self._wire.setblocking(False)

    async def until(self, word: str) -> str:
        """The first message from now on that begins so."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(HEARS_WITHIN_S):
            while True:
                message = (await loop.sock_recv(self._wire, 4096)).decode()
                self.heard.append(message)
                if message.startswith(word):
                    return message

    def close(self) -> None:
        """Stop listening."""
        self._wire.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """A socket of its own."""
    listener = Listener(str(tmp_path / "notify"))
    yield listener
    listener.close()


@pytest.fixture
async def fake(redis_url: str) -> AsyncIterator[FakeOrchestrator]:
    """An orchestrator that grants."""
    async with FakeOrchestrator(redis_url).serving() as fake:
        yield fake


async def test_a_node_says_when_it_joined_lives_and_leaves(
    fake: FakeOrchestrator, listener: Listener, tmp_path: Path
) -> None:
    """Systemd starts what comes after a node once it has joined, ends it when its loop hangs, and sees it drain."""
    environ = {**os.environ, "NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "200000"}
    async with node_process(fake, tmp_path / "state", environ) as node:
        assert "a1 has joined" in await listener.until("READY=1")
        await listener.until("WATCHDOG=1")
        node.signal()
        await listener.until("STOPPING=1")
        assert await node.exit_code() == 0
    assert [word.partition("\n")[0] for word in listener.heard if "WATCHDOG" not in word] == ["READY=1", "STOPPING=1"]


async def test_granted_renewals_keep_the_dead_man_away(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """A machine with a dead-man has a file as young as the last granted renewal."""
    async with node_process(fake, tmp_path, os.environ, further={"MCPFLEET_NODE_MACHINE_TTL_S": "7200"}):
        heard = tmp_path / "heard"
        await fake.until(heard.exists)
        first_ns = heard.stat().st_mtime_ns
        await fake.until(lambda: heard.stat().st_mtime_ns > first_ns)
        # As strict as the journal's: nobody else on the machine can keep it alive.
        assert heard.stat().st_mode & 0o777 == 0o600


async def test_no_dead_man_no_writes(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """A machine that nobody asked to end itself pays no write per renewal."""
    async with node_process(fake, tmp_path, os.environ):
        await fake.renewals_more(2)
        assert not (tmp_path / "heard").exists()


async def test_an_abstract_socket_is_spoken_to(tmp_path: Path) -> None:
    """Service managers may listen at a name that is no path; systemd's own did for years."""
    listener = Listener(f"@mcpfleet-{tmp_path.name}-{os.getpid()}")
    try:
        Supervisor(listener.address).ready("joined")
        assert await listener.until("READY=1") == "READY=1\nSTATUS=joined"
    finally:
        listener.close()


def test_without_a_listener_nothing_breaks(tmp_path: Path) -> None:
    """A node that was started by hand, or whose service manager is gone, runs all the same."""
    Supervisor().ready("joined")
    Supervisor(str(tmp_path / "nobody")).ready("joined")


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 60.0),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "60000000"}, 60.0),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "60000000"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog_is_ours_or_left_alone(environ: dict[str, str], watchdog_s: float) -> None:
    """A watchdog meant for another process is not fed, and no MCP server inherits the right to speak for the node."""
    left = {**environ, "PATH": "/bin"}
    assert supervisor_of(left, pid=7).watchdog_s == watchdog_s
    assert left == {"PATH": "/bin"}

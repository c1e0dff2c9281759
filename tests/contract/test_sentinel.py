"""Connections to a real Sentinel set: one master, two replicas, three sentinels."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from orchestrator.cli.checkup_redis import check_redis
from orchestrator.cli.findings import Health
from orchestrator.dispatch.send import Letter, Sender
from tasks.app import make_app
from tasks.redis_clients import async_client, sync_client
from tasks.redis_url import parse
from tasks.sentinel import ask, ask_soon
from tests.chaos.fleet import Fleet
from tests.chaos.sentinel import DATA, SENTINELS, SentinelSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

WITHIN_S = 40.0
QUEUE = "mcpfleet.n.a1.tools"
pytestmark = pytest.mark.timeout(180)


class Set:
    """A set of its own, without a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        assert fleet.sentinels is not None
        self.fleet, self.found = fleet, fleet.sentinels

    async def master(self) -> str:
        """Who it is now."""
        return await self.found.failed_over(None, WITHIN_S)

    def replicas(self, name: str) -> int:
        """Connected to one data node."""
        with suppress(RedisConnectionError), closing(self.directly(name)) as redis:
            facts: Any = redis.info("replication")
            return int(facts["connected_slaves"])
        return 0

    def shut_out_sentinels(self, name: str) -> None:
        """They cannot log in to it again; connections of others stay open."""
        with closing(self.directly(name)) as redis:
            clients: Any = redis.client_list()
            redis.config_set("requirepass", "another")
            for client in clients:
                if client["name"].startswith("sentinel-"):
                    redis.client_kill_filter(_id=client["id"])

    def directly(self, name: str) -> SyncRedis:
        """A plain client of one data node."""
        return SyncRedis.from_url(self.found.place(name).url, socket_timeout=5.0)


@pytest.fixture
async def redis_set(tmp_path: Path) -> AsyncIterator[Set]:
    """Whole."""
    fleet = Fleet(tmp_path, (), is_sentinel=True)
    try:
        own = Set(fleet)
        for name in DATA:
            await fleet.started(fleet.kept[name])
        # Sentinels look for new replicas every 10 s only.
        await _until(lambda: own.replicas(DATA[0]) == 2)
        for name in SENTINELS:
            await fleet.started(fleet.kept[name])
        await own.found.healed(WITHIN_S)
        yield own
    finally:
        await fleet.close()


async def _write(redis: Redis) -> int:
    """As callers do: again until it is taken. Answers to which port it went."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                async with asyncio.timeout(5.0):
                    await redis.xadd("s", {"a": "b"}, maxlen=10)
                    facts: Any = await redis.config_get("port")
                    return int(facts["port"])
            except (RedisError, OSError):
                await asyncio.sleep(0.1)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - another process gives no event
            await asyncio.sleep(0.1)


async def _port(redis: Redis) -> str | None:
    """Of whom it speaks to; None where two sentinels of three have chosen nobody yet."""
    try:
        return str((await redis.config_get("port"))["port"])
    except RedisConnectionError:
        return None


def _letter(number: int) -> Letter:
    return Letter(f"i{number}", QUEUE, "probe.echo", None, "{}", "mac")


async def test_all_clients_follow_to_the_new_master(redis_set: Set) -> None:
    """One that keeps its connection, one with a pool, one in a thread, and the publisher."""
    found, url = redis_set.found, redis_set.found.url
    kept, pooled, threaded = async_client(url, is_single=True), async_client(url), sync_client(url, answer_s=5.0)
    sender = Sender(make_app(url))
    sender.start()
    try:
        before = await redis_set.master()
        assert await _write(kept) == await _write(pooled) == found.ports[before]
        sender.send(_letter(0))
        await _until(lambda: threaded.llen(QUEUE) == 1)
        await redis_set.fleet.kill(before)
        sender.send(_letter(1))
        after = await found.failed_over(before, WITHIN_S)
        assert await _write(kept) == await _write(pooled) == found.ports[after]
        await _until(lambda: sender.down_because is None and _length(threaded) >= 1)
        assert threaded.config_get("port") == {"port": str(found.ports[after])}
        await redis_set.fleet.started(redis_set.fleet.kept[before])
        await found.healed(WITHIN_S)
        assert await redis_set.master() == after, "the old master is a replica of the new one"
    finally:
        sender.stop()
        threaded.close()
        await asyncio.gather(kept.aclose(), pooled.aclose())


def _length(redis: SyncRedis) -> int:
    try:
        return int(redis.llen(QUEUE))  # type: ignore[arg-type]
    except (RedisError, OSError):
        return 0


async def test_a_demoted_master_is_left_where_nobody_cuts_the_connection(redis_set: Set) -> None:
    """Demoted by hand: what it blocked ends as a broken connection, and a write does not stay with it.

    The sentinels notice it 10 s later at the earliest; until then nobody connects to it again.
    """
    before = await redis_set.master()
    other = next(name for name in ("redis-1", "redis-2") if name != before)
    idle, blocked = (async_client(redis_set.found.url, is_single=True) for _ in range(2))
    try:
        await _write(idle)
        waits = asyncio.create_task(blocked.brpop(["nothing"], timeout=30))  # type: ignore[arg-type]
        with closing(redis_set.directly(before)) as old:
            await _until(lambda: int(old.info("clients")["blocked_clients"]) == 1)  # type: ignore[index]
            old.execute_command("REPLICAOF", "127.0.0.1", redis_set.found.ports[other])
        with pytest.raises(RedisConnectionError):
            await waits
        with suppress(RedisConnectionError):
            await idle.xadd("s", {"a": "b"})
        assert idle.connection is None or not idle.connection.is_connected
        for client in (sync_client(redis_set.found.url, answer_s=5.0), make_app(redis_set.found.url).connection()):
            with closing(client), pytest.raises((RedisConnectionError, OperationalError), match="is a replica now"):
                client.ping() if isinstance(client, SyncRedis) else client.ensure_connection(max_retries=0)
        with pytest.raises(RedisConnectionError, match="is a replica now"):
            await idle.ping()
    finally:
        await asyncio.gather(idle.aclose(), blocked.aclose())


async def test_a_master_that_only_the_sentinels_lost_is_left(redis_set: Set) -> None:
    """It goes on as a master, takes whatever it is sent, and nobody would ever read it."""
    before = await redis_set.master()
    reader, threaded = async_client(redis_set.found.url, is_single=True), sync_client(redis_set.found.url, answer_s=5)
    try:
        await _write(reader)
        threaded.ping()
        redis_set.shut_out_sentinels(before)
        after = str(redis_set.found.ports[await redis_set.found.failed_over(before, WITHIN_S)])
        async with asyncio.timeout(WITHIN_S):
            while await _port(reader) != after:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.1)
        await _until(lambda: threaded.config_get("port") == {"port": after})
    finally:
        threaded.close()
        await reader.aclose()


async def test_sentinels_that_hang_or_are_gone_are_passed_by(redis_set: Set) -> None:
    """Also the first one of the address; a single one is believed where nobody else answers."""
    found = parse(redis_set.found.url)
    assert found is not None
    master = ("127.0.0.1", redis_set.found.ports[await redis_set.master()])
    frozen = redis_set.fleet.pause(SENTINELS[0])
    try:
        for known in (await asyncio.to_thread(ask, found), await ask_soon(found)):
            assert (known.master, known.is_most) == (master, True)
        await redis_set.fleet.kill(SENTINELS[1])
        for known in (await asyncio.to_thread(ask, found), await ask_soon(found)):
            assert (known.master, known.answers, known.is_most) == (master, 1, False)
    finally:
        redis_set.fleet.resume(frozen)


async def test_doctor_names_the_master_and_counts_the_sentinels(redis_set: Set) -> None:
    """A set that has lost its majority still works, until it does not."""
    port = redis_set.found.ports[await redis_set.master()]
    findings = await asyncio.to_thread(lambda: list(check_redis(redis_set.found.url)))
    assert findings[0].detail == f"the master of 'fleet' is 127.0.0.1:{port}; 3 of 3 sentinels answer"
    assert {finding.health for finding in findings} == {Health.OK}
    for name in SENTINELS[:2]:
        await redis_set.fleet.kill(name)
    findings = await asyncio.to_thread(lambda: list(check_redis(redis_set.found.url)))
    assert (findings[0].health, "1 of 3" in findings[0].detail) == (Health.WARN, True)
    wrong = redis_set.found.url.replace("/fleet/", "/other/")
    findings = await asyncio.to_thread(lambda: list(check_redis(wrong)))
    assert (findings[0].health, "no master of 'other'" in findings[0].detail) == (Health.FAIL, True)
    assert next(iter(check_redis("sentinel://h1"))).health is Health.FAIL


def test_the_set_keeps_its_secrets_to_itself(tmp_path: Path) -> None:
    """Configuration files are for their owner only."""
    found = SentinelSet(tmp_path, "valkey-server", lambda: 1)
    for name in found.ports:
        found.command(name)
        assert (found.folder_of(name) / "server.conf").stat().st_mode & 0o077 == 0

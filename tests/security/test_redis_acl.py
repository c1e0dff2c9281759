"""A node's Redis user: enough for its work, over TLS, and of no use for anything else."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as Refused

from orchestrator.redis_users import Guest, Mode, RedisUsers
from orchestrator.registry.member import Lease, Member
from tasks.errors import SettingsError
from tasks.invocation import Lane
from tasks.node import Offer, Ref
from tasks.queues import BINDINGS, control_stream, events_stream, node_queue, pool_queue
from tasks.redis_tls import RedisTls, with_tls, with_user
from tests.security.redis_rig import Server, redis_server
from worker.testing.fake_orchestrator import FakeOrchestrator
from worker.testing.node_process import node_process

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
THIEF = Guest("a1", secrets.token_hex(16), pools=("east",))
VICTIM = Guest("a10", secrets.token_hex(16), pools=("west",))
"""Its name begins with the thief's: a pattern that is too wide would reach it."""
OTHERS = [node_queue("a10", lane) for lane in Lane] + [pool_queue("west", lane) for lane in Lane]
OTHERS += [events_stream("a10"), control_stream("a10"), "mcpfleet.doorbell", "anything", *BINDINGS]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """With two nodes' users, and something on every key of the other."""
    async with redis_server(tmp_path, [THIEF, VICTIM], is_tls=False) as server:
        yield server


def _as(server: Server, guest: Guest) -> Any:
    return Redis.from_url(server.as_guest(guest), retry=Retry(NoBackoff(), 0))


def _attempts(key: str) -> list[tuple[Any, ...]]:
    """Everything that reads, changes, moves or names a key."""
    return [
        ("BRPOP", key, 1), ("RPOP", key), ("LRANGE", key, 0, -1), ("LLEN", key), ("LPUSH", key, "x"), ("DEL", key),
        ("XREAD", "STREAMS", key, "0"), ("XREVRANGE", key, "+", "-"), ("XRANGE", key, "-", "+"),
        ("XTRIM", key, "MAXLEN", 0),
        ("RPOPLPUSH", key, node_queue("a1", Lane.TOOLS)), ("RENAME", key, "mine"), ("COPY", key, "mine"), ("DUMP", key),
        ("MIGRATE", "127.0.0.1", 1, key, 0, 1), ("TYPE", key), ("EXISTS", key), ("GET", key), ("SET", key, "x"),
        ("EVAL", "return redis.call('TYPE', KEYS[1])", 1, key), ("EXPIRE", key, 1), ("OBJECT", "ENCODING", key),
        ("SMEMBERS", key), ("SREM", key, "x"), ("SORT", key), ("XADD", key, "*", "e", "x"), ("XDEL", key, "0-1"),
    ]  # fmt: skip


ANYWHERE: list[tuple[Any, ...]] = [
    ("KEYS", "*"), ("SCAN", 0), ("RANDOMKEY",), ("DBSIZE",), ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "dir", "/x"), ("ACL", "LIST"), ("ACL", "WHOAMI"), ("ACL", "SETUSER", "me", "on", "+@all", "~*"),
    ("EVAL", "return redis.call('KEYS','*')", 0), ("SCRIPT", "LOAD", "return 1"), ("FUNCTION", "LIST"), ("MONITOR",),
    ("SUBSCRIBE", "x"), ("PSUBSCRIBE", "*"), ("PUBLISH", "celeryev", "x"), ("PUBSUB", "CHANNELS"), ("SLOWLOG", "GET"),
    ("CLIENT", "LIST"), ("CLIENT", "KILL", "TYPE", "normal"), ("SHUTDOWN",), ("SAVE",), ("INFO",),
    ("REPLICAOF", "127.0.0.1", 1), ("MODULE", "LIST"), ("SWAPDB", 0, 1), ("LATENCY", "RESET"), ("CLUSTER", "INFO"),
]  # fmt: skip


async def test_a_node_with_stolen_credentials_reaches_no_other_nodes_keys(server: Server) -> None:
    """Queues, streams, control, a pool that it is not in, kombu's sets: by every command that names a key."""
    async with _as(server, THIEF) as redis:
        for key in OTHERS:
            for command in _attempts(key):
                with pytest.raises(NoPermissionError):
                    await redis.execute_command(*command)


@pytest.mark.parametrize("command", ANYWHERE, ids=lambda command: " ".join(map(str, command))[:24])
async def test_a_node_with_stolen_credentials_cannot_look_around(server: Server, command: tuple[Any, ...]) -> None:
    """Keys, settings, users, scripts, channels, other clients, the server itself."""
    async with _as(server, THIEF) as redis:
        with pytest.raises(NoPermissionError):
            await redis.execute_command(*command)


async def test_a_node_may_not_read_its_events_or_write_its_control(server: Server) -> None:
    """Each stream one way: what it said is gone, what it is told it cannot make up."""
    async with _as(server, THIEF) as redis:
        assert await redis.xadd(events_stream("a1"), {"e": "x"})
        for command in (("XREAD", "STREAMS", events_stream("a1"), "0"), ("XADD", control_stream("a1"), "*", "e", "x")):
            with pytest.raises(NoPermissionError):
                await redis.execute_command(*command)


async def test_without_a_user_nothing_is_answered(server: Server) -> None:
    """The default user is closed; so is a wrong password, and another node's."""
    wrong = Guest(VICTIM.node, THIEF.password)
    for url in (server.bare_url, server.as_guest(wrong)):
        async with Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as redis:
            with pytest.raises(AuthenticationError):
                await redis.ping()


def _member(name: str, incarnation: str) -> Member:
    return Member(
        offer=Offer(name=name, pool="east", slots={}),
        incarnation=incarnation,
        delivery_key=secrets.token_bytes(32),
        token_digest="some",
        lease=Lease(1, 0.0),
        joined_at=0.0,
        known_since_s=0.0,
    )


async def test_what_leaves_or_joins_anew_is_cut_off_at_once(server: Server) -> None:
    """Managed users: a revoked node's live connection ends, an earlier process's password is void."""
    first, again = _member("m1", "m1/1"), _member("m1", "m1/2")
    members = [first]
    redis: Any
    async with Redis.from_url(server.url) as redis:
        users = RedisUsers(
            Mode.MANAGE, b"s", url=server.bare_url, redis=redis, members=lambda: members, is_late=lambda _: False
        )
        await users.admit(first)
        async with Redis.from_url(
            users.url_for(first), retry=Retry(NoBackoff(), 0), single_connection_client=True
        ) as live:
            await live.xadd(events_stream("m1"), {"e": "x"})
            await users.admit(again)
            with pytest.raises(RedisError):
                await live.ping()
        async with Redis.from_url(
            users.url_for(again), retry=Retry(NoBackoff(), 0), single_connection_client=True
        ) as live:
            await live.ping()
            again.token_digest, members[:] = "", [again]  # revoked
            await users.keep()
            with pytest.raises((Refused, AuthenticationError)):
                await live.ping()
        again.token_digest = "back"
        await users.keep()  # as after a Redis that forgot its users
        async with Redis.from_url(users.url_for(again)) as live:
            await live.ping()
        assert "mcpfleet.n.a10" not in str(await redis.execute_command("ACL", "USERS")), "no member: ended"


def test_tls_files_are_used_with_tls_only() -> None:
    """Kombu would speak plain to rediss:// without options in the address; ours always asks for a certificate."""
    assert "ssl_cert_reqs=required" in with_tls("rediss://h:1/0", RedisTls())
    with pytest.raises(SettingsError):
        with_tls("redis://h:1/0", RedisTls(ca=Path("/ca.pem")))
    hosts = with_user("sentinel://:old@h1:1,h2:2/mymaster/0", "mcpfleet.n.a1", "p@ss/w")
    assert hosts == "sentinel://mcpfleet.n.a1:p%40ss%2Fw@h1:1,h2:2/mymaster/0"


@pytest.mark.live("redis-tls")
async def test_a_real_node_works_over_tls_as_its_own_user(tmp_path: Path) -> None:
    """Celery, the reporter, the control reader and a late-bound call, on Debian's Redis with `port 0` and TLS 1.3."""
    guest = Guest("a1", secrets.token_hex(16), pools=("default",))
    async with redis_server(tmp_path, [guest], is_tls=True) as server:
        fake = FakeOrchestrator(server.url, is_late=True, signer=Ed25519PrivateKey.generate())
        fake.redis_url_for_nodes = with_user(server.bare_url, guest.user, guest.password)
        files = {"CA": server.tls.ca, "CERT": server.tls.cert, "KEY": server.tls.key}
        further = {f"MCPFLEET_NODE_REDIS_{name}": str(path) for name, path in files.items()}
        async with fake.serving(), node_process(fake, tmp_path / "state", os.environ, further=further) as node:
            for late in ({}, {"node": None, "incarnation": None}):
                ended = await fake.ended(await fake.call("probe.echo", '{"word": "hello"}', **late))
                assert ended.outcome.ending == "succeeded"
            await fake.until(lambda: fake.renewals and not fake.renewals[-1].inventory)  # settled was heard
            await fake.control("cancel", Ref(invocation="none", fence=1))
            node.signal()
            assert await node.exit_code() == 0
        async with Redis.from_url(server.url) as redis:
            stats: Any = await redis.info("commandstats")
        rejected = {name for name, one in stats.items() if one["rejected_calls"]}
        assert rejected <= {"cmdstat_client|setinfo"}, "its user may do all that it tries"
        assert {"cmdstat_brpop", "cmdstat_xadd", "cmdstat_xread"} <= stats.keys()


@pytest.mark.live("redis-tls")
async def test_tls_redis_answers_nobody_without_a_certificate(tmp_path: Path) -> None:
    """Nor anybody who trusts another authority."""
    async with redis_server(tmp_path, [THIEF], is_tls=True) as server:
        url = with_user(server.bare_url, THIEF.user, THIEF.password)
        for tls in (RedisTls(ca=server.tls.ca), RedisTls()):
            async with Redis.from_url(with_tls(url, tls), retry=Retry(NoBackoff(), 0)) as redis:
                with pytest.raises((RedisError, OSError)):
                    await redis.ping()
        plain = url.replace("rediss://", "redis://")
        async with Redis.from_url(plain, retry=Retry(NoBackoff(), 0), socket_timeout=60) as redis:
            with pytest.raises((RedisError, OSError, asyncio.TimeoutError)):
                await redis.ping()

"""One Redis user per node: what it may do there, its password, and the file or the commands that make it.

A node may take from its own queues and put back, write its own stream, read its own control stream, and nothing
else: no other node's keys, no KEYS, SCAN, scripts, channels, settings. Refuses to know more of Redis than its
ACL. Source: docs/adr/0020-untrusted-broker.md; https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from orchestrator.redis_client import ANSWER_S
from orchestrator.registry.member import Member
from tasks.invocation import Lane
from tasks.queues import BINDINGS, FLOWER_ASKS, PREFIX, control_stream, events_stream, node_queue, pool_queue
from tasks.redis_tls import with_user
from tasks.sealing import derive

log = structlog.get_logger("mcpfleet.redis_users")
COMMANDS = (
    "+ping", "+hello", "+auth", "+select", "+client|setname", "+client|id", "+brpop", "+rpop", "+blmpop", "+llen",
    "+lpush", "+rpush", "+multi", "+exec", "+discard", "+unwatch",
)  # fmt: skip
"""On its queues: of redis-py, and of kombu without acknowledgement emulation. Its streams have one command each."""
ORCHESTRATOR = ("~mcpfleet.*", "~_kombu.*", "~*celeryev*", "allchannels", "+@all", "-@dangerous", "+info")
"""Flower's feed publishes on kombu's channel and counts who listens."""
FLOWER_USER = f"{PREFIX}.flower"
FLOWER = (
    "-@all", "+ping", "+hello", "+auth", "+select", "+client|setname", "+client|id", "+multi", "+exec", "+discard",
    "+unwatch", "+psubscribe", "+punsubscribe",
    "resetchannels", *(f"&/{db}.celeryev/*" for db in range(16)),  # a pattern is only good for itself
    # kombu's bookkeeping of the queue that is Flower's own, by a script, which may do what its user may
    "~_kombu.binding*", "~celeryev.*", "+sadd", "+srem", "+smembers", "+del", "+llen", "+exists", "+time",
    "+zadd", "+zrem", "+zrangebyscore", "+evalsha", "+script|load",
    f"(%W~{FLOWER_ASKS} +sadd +expire)", f"(%R~{PREFIX}.n.* %R~{PREFIX}.p.* +llen)",
)  # fmt: skip
"""It hears events, asks for the past and counts what waits; it reads no message and sends none."""
MANAGES = ("+acl|setuser", "+acl|deluser", "+acl|users")


class Mode(StrEnum):
    """Who makes the users."""

    OFF = "off"
    """Nobody: all use the address's own user."""
    FILE = "file"
    """The operator, by `mcpfleet redis acl`: a password per node."""
    MANAGE = "manage"
    """The orchestrator, at each join: a password per process of a node."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A node, as Redis is to know it."""

    node: str
    password: str
    pools: tuple[str, ...] = ()
    """The pool whose queues it takes from (late binding)."""

    @property
    def user(self) -> str:
        """Its name there."""
        return user_of(self.node)

    def rules(self) -> tuple[str, ...]:
        """All of them, from nothing. The password by its digest: commands are logged and overheard."""
        queues = [node_queue(self.node, lane) for lane in Lane]
        queues += [pool_queue(pool, lane) for pool in self.pools for lane in Lane]
        return (
            "reset",
            "on",
            f"#{_sha256(self.password.encode())}",
            *(f"%RW~{queue}" for queue in queues),
            "-@all",
            *COMMANDS,
            f"(%W~{events_stream(self.node)} +xadd)",
            f"(%R~{control_stream(self.node)} +xread +xrevrange)",
            *(f"(%W~{bindings} +sadd)" for bindings in BINDINGS),  # kombu notes consumed queues there; nobody reads
        )


def user_of(node: str) -> str:
    """Node names hold no glob characters and no space (`tasks.node.NAME_PATTERN`)."""
    return f"{PREFIX}.n.{node}"


def lasting_password(secret: bytes, node: str) -> str:
    """Of a node in a file: good for all its processes, until the secret changes."""
    return derive(secret, f"redis {node}").hex()


def acl_file(guests: Iterable[Guest], *, orchestrator_password: str, flower_password: str | None = None) -> str:
    """What `aclfile` in redis.conf is to name. The default user is closed."""
    digest = _sha256(orchestrator_password.encode())
    flower = () if flower_password is None else (flower_password.encode(),)
    lines = [
        "user default reset off",
        " ".join(("user", PREFIX, "reset", "on", f"#{digest}", *ORCHESTRATOR, *MANAGES)),
        *(" ".join(("user", FLOWER_USER, "reset", "on", f"#{_sha256(word)}", *FLOWER)) for word in flower),
        *(" ".join(("user", guest.user, *guest.rules())) for guest in guests),
    ]
    return "\n".join(lines) + "\n"


def _sha256(password: bytes) -> str:
    return hashlib.sha256(password).hexdigest()


class RedisUsers:
    """Tells each node as whom to log in, and keeps Redis to it where the fleet manages its users."""

    def __init__(
        self,
        mode: Mode,
        secret: bytes,
        *,
        url: str,
        redis: Redis,
        members: Callable[[], Iterable[Member]],
        is_late: Callable[[str], bool],
    ) -> None:
        self._mode, self._secret, self._url, self._redis = mode, secret, url, redis
        self._members, self._is_late = members, is_late
        self._one_writes = asyncio.Lock()

    def url_for(self, member: Member) -> str:
        """The address this node is told."""
        if self._mode is Mode.OFF:
            return self._url
        guest = self.guest(member)
        return with_user(self._url, guest.user, guest.password)

    def guest(self, member: Member) -> Guest:
        """This process of the node, or the node."""
        pools = (member.offer.pool,) if self._is_late(member.offer.pool) else ()
        if self._mode is Mode.FILE:
            return Guest(member.name, lasting_password(self._secret, member.name), pools)
        mine = derive(self._secret, f"redis {member.name} {member.incarnation} {member.delivery_key.hex()}")
        return Guest(member.name, mine.hex(), pools)

    async def admit(self, member: Member) -> None:
        """It joins: what an earlier process of it had open is closed, its password is void.

        A Redis that is away holds up no join: `keep` makes the user when it is back.
        """
        if self._mode is not Mode.MANAGE:
            return
        try:
            async with asyncio.timeout(ANSWER_S), self._one_writes:
                pipeline: Any = self._redis.pipeline(transaction=True)  # DELUSER drops connections, SETUSER does not
                pipeline.execute_command("ACL", "DELUSER", user_of(member.name))
                pipeline.execute_command("ACL", "SETUSER", user_of(member.name), *self.guest(member).rules())
                await pipeline.execute()
        except (RedisError, OSError) as error:
            log.warning("redis_user_not_made", node=member.name, error=str(error) or type(error).__name__)

    async def keep(self) -> None:
        """Users of members are there, others of ours are not: after a revocation, a failover, a wiped Redis."""
        if self._mode is not Mode.MANAGE:
            return
        try:
            async with asyncio.timeout(ANSWER_S), self._one_writes:
                await self._keep()
        except (RedisError, OSError) as error:
            log.warning("redis_users_not_kept", error=str(error) or type(error).__name__)

    async def _keep(self) -> None:
        wanted: Mapping[str, Guest] = {
            user_of(member.name): self.guest(member) for member in self._members() if member.token_digest
        }
        redis: Any = self._redis
        listed = await redis.execute_command("ACL", "USERS")
        known = {name.decode() if isinstance(name, bytes) else str(name) for name in listed}
        strangers = {name for name in known if name.startswith(user_of(""))} - wanted.keys()
        pipeline: Any = self._redis.pipeline(transaction=False)
        for name in strangers:
            log.info("redis_user_ended", user=name)
            pipeline.execute_command("ACL", "DELUSER", name)
        for name in wanted.keys() - known:
            pipeline.execute_command("ACL", "SETUSER", name, *wanted[name].rules())
        await pipeline.execute()

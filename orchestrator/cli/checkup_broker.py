"""Doctor: is the broker set so that it keeps what it is given, lets in who should come, and stays reachable?

Asks a connection that is open. Settings that this user may not read are skipped, and said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import redis

from orchestrator.cli.findings import Finding, Health, is_loopback
from orchestrator.local.logfile import masked

OK, WARN, FAIL, SKIP = Health.OK, Health.WARN, Health.FAIL, Health.SKIP
ROOM_WARN, ROOM_FAIL = 0.80, 0.95
IDLE_MIN_S = 60
"""The orchestrator's connections may be silent for some seconds; a server that closes them sooner costs reconnects."""


def settings_of(client: Any, url: str, acl: str) -> Iterator[Finding]:  # noqa: ANN401 - a redis client
    """Findings of one server.

    Args:
        client: connected as MCPFLEET_REDIS_URL says.
        url: that address.
        acl: MCPFLEET_REDIS_ACL.
    """
    try:
        found: Mapping[str, str] = {
            name: value
            for pattern in ("maxmemory-policy", "timeout", "tcp-keepalive")
            for name, value in client.config_get(pattern).items()
        }
    except redis.exceptions.ResponseError as error:
        mend = "look as a user who may: CONFIG GET maxmemory-policy, timeout, tcp-keepalive"
        yield Finding(check="redis memory", health=SKIP, detail=f"its settings cannot be read: {error}", mend=mend)
    else:
        yield _eviction(str(found.get("maxmemory-policy", "unknown")))
        yield _timeouts(found)
    facts = client.info()
    yield _room(facts)
    yield from _access(url, acl)


def _eviction(policy: str) -> Finding:
    if policy == "noeviction":
        return Finding(check="redis memory", health=OK, detail="noeviction")
    mend = "CONFIG SET maxmemory-policy noeviction: an evicted queue is a lost delivery"
    return Finding(check="redis memory", health=FAIL, detail=f"maxmemory-policy is {policy}", mend=mend)


def _timeouts(found: Mapping[str, str]) -> Finding:
    idle_s, alive_s = int(found.get("timeout", 0)), int(found.get("tcp-keepalive", 300))
    if 0 < idle_s < IDLE_MIN_S:
        detail = f"it closes connections that are silent for {idle_s} s"
        return Finding(check="redis timeouts", health=WARN, detail=detail, mend="CONFIG SET timeout 0")
    if alive_s == 0:
        detail = "it does not notice clients that are gone: tcp-keepalive is 0"
        return Finding(check="redis timeouts", health=WARN, detail=detail, mend="CONFIG SET tcp-keepalive 300")
    return Finding(check="redis timeouts", health=OK, detail=f"timeout {idle_s} s, tcp-keepalive {alive_s} s")


def _room(facts: Mapping[str, Any]) -> Finding:
    used, limit = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if not limit:
        return Finding(check="redis room", health=OK, detail=f"{used >> 20} MiB used, no limit of its own")
    share = used / limit
    health = FAIL if share >= ROOM_FAIL else WARN if share >= ROOM_WARN else OK
    mend = "" if health is OK else "raise maxmemory, or find what fills it: a full Redis refuses deliveries"
    detail = f"{share:.0%} of {limit >> 20} MiB used"
    return Finding(check="redis room", health=health, detail=detail, mend=mend)


def _access(url: str, acl: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    is_near = parts.scheme == "unix" or is_loopback(parts.hostname or "")
    if not is_near and parts.scheme == "redis":
        mend = "rediss:// with MCPFLEET_REDIS_CA, or a network of its own: docs/redis.md"
        yield Finding(check="redis tls", health=WARN, detail=f"{masked(url)} is reached without TLS", mend=mend)
    if parts.scheme in ("redis", "rediss"):
        yield _strangers(url, acl, is_near=is_near)


def _strangers(url: str, acl: str, *, is_near: bool) -> Finding:
    """Whether somebody without a password may come in."""
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    try:
        client = redis.Redis.from_url(bare, socket_timeout=3.0, socket_connect_timeout=3.0)
        with client:
            client.ping()
    except (redis.RedisError, OSError):
        said = f"nobody comes in without a password; users by MCPFLEET_REDIS_ACL={acl}"
        return Finding(check="redis users", health=OK, detail=said)
    mend = "requirepass, or `mcpfleet redis acl` and `user default off`: docs/redis.md"
    health = WARN if is_near and acl == "off" else FAIL
    return Finding(check="redis users", health=health, detail="anybody who reaches it may do anything", mend=mend)

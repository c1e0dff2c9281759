"""Doctor: is the broker set so that it keeps what it is given, lets in who should come, and stays reachable?

Asks a connection that is open. Settings that this user may not read are skipped, and said.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import redis

from orchestrator.cli.checkup_postgres import latency
from orchestrator.cli.durations import took
from orchestrator.cli.findings import Finding, Health, is_loopback
from orchestrator.local.logfile import masked

OK, WARN, FAIL, SKIP = Health.OK, Health.WARN, Health.FAIL, Health.SKIP
ROOM_WARN, ROOM_FAIL = 0.80, 0.95
IDLE_MIN_S = 60
"""The orchestrator's connections may be silent for some seconds; a server that closes them sooner costs reconnects."""
CLIENTS_WARN, CLIENTS_FAIL = 0.80, 0.95
SKEW_MAX_S = 5.0
PINGS = 5
KEYS_READ = 5_000
NODE_KEYS = "mcpfleet.n."


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
    yield role(facts)
    yield writes(facts)
    yield clients(facts)
    yield from _access(url, acl)


def times_of(client: Any, now: Callable[[], float]) -> Iterator[Finding]:  # noqa: ANN401 - a redis client
    """How far away it is, and what time it has there; `now` is of this machine, seconds since the epoch."""
    took_s = []
    for _ in range(PINGS):
        began_s = time.perf_counter()
        client.ping()
        took_s.append(time.perf_counter() - began_s)
    answer_s = statistics.median(took_s)
    yield latency(check="redis latency", answer_s=answer_s, why="each call makes several round trips")
    seconds, micros = client.time()
    yield clock(seconds + micros / 1e6 - now())


def clock(ahead_s: float) -> Finding:
    """Of its machine, against this one's."""
    if abs(ahead_s) <= SKEW_MAX_S:
        return Finding(check="redis clock", health=OK, detail="agrees with this machine's")
    detail = f"{took(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    mend = (
        "set both by NTP (timedatectl set-ntp true): what expires in Redis, and what nodes told it, goes by its clock"
    )
    return Finding(check="redis clock", health=WARN, detail=detail, mend=mend)


def role(facts: Mapping[str, Any]) -> Finding:
    """Whether it is one that can be written to."""
    if facts.get("role") != "slave":
        return Finding(check="redis role", health=OK, detail="a master")
    mend = "name the master in MCPFLEET_REDIS_URL, or its sentinels: docs/redis.md"
    return Finding(check="redis role", health=FAIL, detail="a replica: it takes no writes", mend=mend)


def writes(facts: Mapping[str, Any]) -> Finding:
    """Whether what it saves gets to its disk: after a save that failed it refuses every write, by default."""
    words = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
    failed = [name for name in words if facts.get(name, "ok") != "ok"]
    if not failed:
        return Finding(check="redis saves", health=OK, detail="the last ones went well")
    mend = "room on its disk, and the right owner of its folder (CONFIG GET dir); its log says which"
    return Finding(check="redis saves", health=FAIL, detail=f"{', '.join(failed)} failed", mend=mend)


def clients(facts: Mapping[str, Any]) -> Finding:
    """Connections: each node has several."""
    used, most = int(facts.get("connected_clients", 0)), int(facts.get("maxclients", 0))
    if not most:
        return Finding(check="redis clients", health=OK, detail=f"{used} connected")
    share = used / most
    health = FAIL if share >= CLIENTS_FAIL else WARN if share >= CLIENTS_WARN else OK
    mend = "" if health is OK else "CONFIG SET maxclients, and LimitNOFILE of its unit; CLIENT LIST says who they are"
    return Finding(check="redis clients", health=health, detail=f"{used} of {most} connected", mend=mend)


def strangers(client: Any, known: Collection[str]) -> Finding:  # noqa: ANN401 - a redis client
    """Queues and streams of nodes that this fleet does not know: another fleet, or what a removed one left."""
    keys = islice(client.scan_iter(match=f"{NODE_KEYS}*", count=1000), KEYS_READ)
    found = {key.decode(errors="replace").removeprefix(NODE_KEYS).partition(".")[0] for key in keys}
    unknown = sorted(found - set(known))
    if not unknown:
        return Finding(check="redis queues", health=OK, detail=f"all are of the {len(known)} nodes that are known")
    few = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")  # noqa: PLR2004
    mend = (
        "where another fleet uses this Redis: give each a database, or better a server, of its own; else remove them: "
        f"redis-cli --scan --pattern '{NODE_KEYS}NAME.*'"
    )
    return Finding(check="redis queues", health=WARN, detail=f"of nodes that nobody knows: {few}", mend=mend)


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

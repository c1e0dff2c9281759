"""Doctor: is the broker reachable, new enough, and set so that it loses nothing silently?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from orchestrator.cli.findings import Finding, Health
from orchestrator.local.logfile import masked
from tasks.errors import SettingsError

if TYPE_CHECKING:
    from tasks.redis_url import Sentinels

ANSWER_S = 3.0
VERSION_MIN = (6, 2)
"""Streams trimmed by MINID (XTRIM MINID) and XAUTOCLAIM came with Redis 6.2."""


def check_redis(url: str | None, acl: str = "off", now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Findings about the Redis at `url`; None: none is configured here."""
    if url is None:
        yield Finding(
            check="redis", health=Health.SKIP, detail="MCPFLEET_REDIS_URL is not set; `mcpfleet up` brings its own"
        )
        return
    import redis

    from orchestrator.cli.checkup_broker import settings_of, times_of
    from tasks.redis_clients import sync_client
    from tasks.redis_url import parse

    try:
        found = parse(url)
    except SettingsError as error:
        yield Finding(check="redis", health=Health.FAIL, detail=error.message, mend="correct MCPFLEET_REDIS_URL")
        return
    if found is not None:
        yield _sentinels(found)
    client = sync_client(url, answer_s=ANSWER_S)
    try:
        facts = client.info()
        assert isinstance(facts, dict)
        yield _version(facts, masked(url))
        yield from settings_of(client, url, acl)
        yield from times_of(client, now)
    except (redis.RedisError, OSError, ValueError) as error:
        detail = f"{masked(url)} does not answer: {error}"
        yield Finding(check="redis", health=Health.FAIL, detail=detail, mend="start it, or correct MCPFLEET_REDIS_URL")
        return
    finally:
        client.close()
    yield _persistence(facts)


def _sentinels(found: Sentinels) -> Finding:
    from tasks.sentinel import ask

    known, wanted = ask(found, is_all=True), len(found.hosts)
    heard = f"{known.answers} of {wanted} sentinels answer"
    if known.master is None:
        detail = f"no master of {found.master!r}; {heard}"
        mend = "SENTINEL CKQUORUM on one of them says what they lack; correct MCPFLEET_REDIS_URL if the name is wrong"
        return Finding(check="redis sentinel", health=Health.FAIL, detail=detail, mend=mend)
    detail = f"the master of {found.master!r} is {known.master[0]}:{known.master[1]}; {heard}"
    if known.answers < wanted:
        mend = "start those that do not: without a majority nobody replaces a master that dies"
        return Finding(check="redis sentinel", health=Health.WARN, detail=detail, mend=mend)
    return Finding(check="redis sentinel", health=Health.OK, detail=detail)


def _version(facts: dict[str, object], where: str) -> Finding:
    name = "Valkey" if "valkey_version" in facts else "Redis"
    text = str(facts.get("valkey_version") or facts.get("redis_version"))
    compatible = tuple(int(part) for part in str(facts.get("redis_version", "0")).split(".")[:2] if part.isdecimal())
    if compatible < VERSION_MIN:
        wanted = ".".join(map(str, VERSION_MIN))
        return Finding(
            check="redis",
            health=Health.FAIL,
            detail=f"{name} {text} at {where}",
            mend=f"use Redis {wanted} or newer, or Valkey",
        )
    return Finding(check="redis", health=Health.OK, detail=f"{name} {text} at {where}")


def _persistence(facts: dict[str, object]) -> Finding:
    if facts.get("aof_enabled"):
        return Finding(check="redis disk", health=Health.OK, detail="append-only file")
    mend = "appendonly yes: without it a restart costs every delivery under way a few seconds until it is sent again"
    return Finding(check="redis disk", health=Health.WARN, detail="no append-only file", mend=mend)

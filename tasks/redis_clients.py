"""Connects to what MCPFLEET_REDIS_URL says: for Celery, for threads, and for the event loop.

The only place that knows the two kinds of address apart. Refuses to retry by itself: each caller has its
own loop around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import ConnectionPool as SyncConnectionPool
from redis import Redis as SyncRedis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from tasks.redis_reset import told_of_resets
from tasks.redis_url import Sentinels, parse
from tasks.sentinel import AsyncMasterConnection, MasterConnection, sentinel_options

SENTINEL_TRANSPORT = "tasks.sentinel_transport:Transport"
CONNECT_S = 5.0
"""To a data node."""
HANGS_AFTER_S = 5.0
"""With Sentinel there is another one: a publisher waits no longer for the one that hangs."""
HEALTH_CHECK_S = 2
"""With BRPOP's own second, a consumer has left a master that hangs after 5 s at the latest."""


@dataclass(frozen=True, slots=True)
class Broker:
    """What Celery is told.

    Attributes:
        transport: of kombu; None for the one that the address names.
        options: kombu's transport options, beside those that are always the same.
    """

    url: str = field(repr=False)
    transport: str | None = None
    options: Mapping[str, object] = field(default_factory=dict, repr=False)


def broker(url: str) -> Broker:
    """The broker's address, as Celery and kombu take it.

    Raises:
        SettingsError: the address is wrong.
    """
    found = parse(url)
    if found is None:
        return Broker(url)
    options: dict[str, object] = {
        "sentinels": found,
        "socket_timeout": HANGS_AFTER_S,
        "socket_connect_timeout": CONNECT_S,
        "health_check_interval": HEALTH_CHECK_S,
        # For Celery's own tools; our Flower asks by a client of this file.
        "master_name": found.master,
        "sentinel_kwargs": sentinel_options(found),
    }
    return Broker(found.broker_url(), SENTINEL_TRANSPORT, options)


def sync_client(url: str, *, answer_s: float) -> SyncRedis:
    """For a thread. Nothing connects yet.

    Raises:
        SettingsError: the address is wrong.
    """
    found = parse(url)
    options: dict[str, Any] = {"socket_timeout": answer_s, "socket_connect_timeout": answer_s}
    options |= {"retry": SyncRetry(NoBackoff(), 1)}
    if found is None:
        return SyncRedis.from_url(url, **options)
    pool = SyncConnectionPool(connection_class=MasterConnection, sentinels=found, **_to_data(found), **options)
    return SyncRedis.from_pool(pool)


def async_client(
    url: str, *, retries: int = 0, check_s: int = 0, is_single: bool = False, answer_s: float | None = None
) -> Redis:
    """For the event loop. Nothing connects yet.

    Without the client's own timeouts, each caller has one around its command. They would cost a task
    per command, and on Python 3.11 may swallow a cancellation (asyncio.wait_for, python/cpython#86296),
    after which a loop that was to end goes on.

    Args:
        url: what MCPFLEET_REDIS_URL may say.
        retries: of a command whose connection broke, at once.
        check_s: a connection idle for so long is asked first whether it still is one; 0: never.
        is_single: one connection, for one caller at a time.
        answer_s: the client's own timeout, for one who asks once and ends.

    Raises:
        SettingsError: the address is wrong.
    """
    found = parse(url)
    options: dict[str, Any] = {
        "socket_timeout": answer_s,
        "socket_connect_timeout": answer_s or CONNECT_S,
        "retry": Retry(NoBackoff(), retries),
        "health_check_interval": check_s,
    }
    if found is None:
        return told_of_resets(Redis.from_url(url, single_connection_client=is_single, **options))
    pool = ConnectionPool(connection_class=AsyncMasterConnection, sentinels=found, **_to_data(found), **options)
    client = Redis(connection_pool=pool, single_connection_client=is_single)
    client.auto_close_connection_pool = True
    return told_of_resets(client)


def _to_data(found: Sentinels) -> dict[str, Any]:
    return {"username": found.username, "password": found.password, "db": found.db}

"""The orchestrator's own connections to Redis, for streams and queue depths; Celery has its own."""

from __future__ import annotations

from redis.asyncio import Redis

from tasks.redis_clients import async_client

ANSWER_S = 5.0
"""A Redis that takes longer for one command is as good as away: every caller has this around it."""
CHECK_S = 15
"""A connection idle for so long is asked first whether it still is one."""


def redis_of(url: str) -> Redis:
    """One more try on a new connection: the pool's may have gone stale while nobody called.

    Raises:
        SettingsError: the address is wrong.
    """
    return async_client(url, retries=1, check_s=CHECK_S)

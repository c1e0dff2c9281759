"""The orchestrator's own connections to Redis, for streams and queue depths; Celery has its own."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tasks.redis_reset import told_of_resets

ANSWER_S = 5.0
"""A Redis that takes longer for one command is as good as away: every caller has this around it."""
CONNECT_S = 5.0
CHECK_S = 15
"""A connection idle for so long is asked first whether it still is one."""


def redis_of(url: str) -> Redis:
    """Without the client's own timeout: each caller has one around its command.

    It would cost a task per command, and on Python 3.11 it may swallow a cancellation
    (asyncio.wait_for, python/cpython#86296), after which a loop that was to end goes on.
    """
    return told_of_resets(
        Redis.from_url(
            url,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 1),
            health_check_interval=CHECK_S,
        )
    )

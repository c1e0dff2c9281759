"""Redis on uvloop: a connection that was reset while nobody read from it is said to be one.

uvloop refuses a write on a transport that the other side has reset with a `RuntimeError`, where asyncio's
own loop lets the next read fail. Nobody waits for that error: it ended whole nodes whose network had been cut.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError


def told_of_resets(redis: Redis) -> Redis:
    """The same client, whose next connections raise redis-py's ConnectionError then."""
    pool: Any = redis.connection_pool
    pool.connection_class = _told(pool.connection_class)
    return redis


@cache
def _told(connection_class: Any) -> Any:  # noqa: ANN401 - redis-py has one for TCP, TLS, Sentinel
    async def send_packed_command(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as redis-py's
        try:
            await connection_class.send_packed_command(self, *args, **kwargs)
        except RuntimeError as error:
            raise RedisConnectionError(f"the connection was reset: {error}") from error

    return type(connection_class.__name__, (connection_class,), {"send_packed_command": send_packed_command})

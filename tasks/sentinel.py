# mypy: disable-error-code="no-untyped-call"
# redis-py's connection classes carry types in part only.
"""Connections that lead to whoever the sentinels say is the master.

redis-py's own Sentinel classes ask for the master in one of their ways to connect only: a client that
keeps its connection tries a dead master for ever (8.1: `send_packed_command` connects to the address of
before). These ask whenever a socket is opened, ask all sentinels and believe the newest epoch, so that
one that hangs, died or slept costs nothing. An open connection is doubted now and then: reads of a
demoted master are answered, and a master that only the sentinels cannot reach takes writes that nobody
else will see. Refuses to retry: callers do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.connection import Connection as AsyncConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import Connection as SyncConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry as SyncRetry

from tasks.redis_url import Sentinels

ASK_S = 1.0
"""A sentinel that takes longer is passed by; it is near, and there are others."""
DOUBT_EVERY_S = 2.0
"""After a failover that was ordered, the old master takes writes that nobody reads for 10 s (measured)."""
NOT_A_MASTER = ("READONLY", "UNBLOCKED", "MASTERDOWN")
"""What a server that was demoted says; redis-py keeps the connection after the last two."""
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Known:
    """What the sentinels said.

    Attributes:
        master: None while it is down and no other is chosen.
        answers: of so many sentinels.
        is_most: a majority answered.
    """

    master: Address | None
    answers: int
    is_most: bool


def sentinel_options(found: Sentinels) -> dict[str, Any]:
    """How to connect to one sentinel, but for `retry`, whose class differs."""
    return {
        "username": found.sentinel_username,
        "password": found.sentinel_password,
        "socket_timeout": ASK_S,
        "socket_connect_timeout": ASK_S,
    }


def ask(found: Sentinels, *, is_all: bool = False) -> Known:
    """Whom most sentinels name; from a thread. One after the other, as they mostly answer at once.

    Args:
        found: whom to ask.
        is_all: every one of them, to count those that answer.
    """
    states: list[Mapping[str, Any]] = []
    for host, port in found.hosts:
        with SyncRedis(host, port, retry=SyncRetry(NoBackoff(), 0), **sentinel_options(found)) as sentinel:
            try:
                states.append(sentinel.sentinel_master(found.master))
            except (RedisError, OSError):
                continue
        if _is_most(states, found) and not is_all:
            break
    return known_of(states, found)


async def ask_soon(found: Sentinels) -> Known:
    """Whom most sentinels name; from the event loop. All at once."""
    asking = [asyncio.ensure_future(_ask_one(found, host, port)) for host, port in found.hosts]
    states: list[Mapping[str, Any]] = []
    try:
        for answer in asyncio.as_completed(asking):
            state = await answer
            if state is not None:
                states.append(state)
            if _is_most(states, found):
                break
    finally:
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return known_of(states, found)


class MasterConnection(SyncConnection):
    """To the master of the moment; for threads and for kombu."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:  # noqa: ANN401 - redis-py's options
        super().__init__(**options)
        self._sentinels = sentinels
        self._doubt_at_s = 0.0
        self._is_greeting = False

    def _connect(self) -> Any:  # noqa: ANN401 - as redis-py's
        self.host, self.port = _chosen(ask(self._sentinels), self._sentinels)
        self._doubt_at_s = time.monotonic() + DOUBT_EVERY_S
        self._is_greeting = True
        return super()._connect()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401 - as redis-py's
        """As redis-py's. Raises redis.ConnectionError where another is the master by now.

        It does not go there by itself: kombu's poller must be told of every new socket.
        """
        if self._sock and time.monotonic() >= self._doubt_at_s:
            self._doubt_at_s = time.monotonic() + DOUBT_EVERY_S
            if words := left_for(ask(self._sentinels), (self.host, self.port)):
                self.disconnect()
                raise RedisConnectionError(words)
        super().send_packed_command(command, check_health)

    def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py's
        """As redis-py's. Raises redis.ConnectionError where the answer is that of a demoted master."""
        try:
            answer = super().read_response(*args, **options)
        except ResponseError as error:
            if not is_demoted(error):
                raise
            self.disconnect()
            raise RedisConnectionError(f"{self.host}:{self.port} is not the master any more: {error}") from error
        if self._is_greeting and (role := role_in(answer)):
            self._is_greeting = False
            if role != "master":
                self.disconnect()
                raise RedisConnectionError(f"{self.host}:{self.port} is to be the master, and is a {role} now")
        return answer


class AsyncMasterConnection(AsyncConnection):
    """To the master of the moment; for the event loop."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:  # noqa: ANN401 - redis-py's options
        super().__init__(**options)
        self._sentinels = sentinels
        self._doubt_at_s = 0.0
        self._is_greeting = False

    async def _connect(self) -> None:
        self.host, self.port = _chosen(await ask_soon(self._sentinels), self._sentinels)
        self._doubt_at_s = time.monotonic() + DOUBT_EVERY_S
        self._is_greeting = True
        await super()._connect()

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401 - as redis-py's
        """As redis-py's. Where another is the master by now, it goes there: nothing has been sent yet."""
        if self.is_connected and time.monotonic() >= self._doubt_at_s:
            self._doubt_at_s = time.monotonic() + DOUBT_EVERY_S
            if left_for(await ask_soon(self._sentinels), (self.host, self.port)):
                await self.disconnect(nowait=True)
        await super().send_packed_command(command, check_health)

    async def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py's
        """As redis-py's. Raises redis.ConnectionError where the answer is that of a demoted master."""
        try:
            answer = await super().read_response(*args, **options)
        except ResponseError as error:
            if not is_demoted(error):
                raise
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"{self.host}:{self.port} is not the master any more: {error}") from error
        if self._is_greeting and (role := role_in(answer)):
            self._is_greeting = False
            if role != "master":
                await self.disconnect(nowait=True)
                raise RedisConnectionError(f"{self.host}:{self.port} is to be the master, and is a {role} now")
        return answer


def known_of(states: list[Mapping[str, Any]], found: Sentinels) -> Known:
    """A sentinel that was away tells of the master before: its epoch is older."""
    if not states:
        return Known(None, 0, is_most=False)
    newest = max(states, key=lambda state: int(state["config-epoch"]))
    is_up = newest["is_master"] and not newest["is_sdown"] and not newest["is_odown"]
    master = (str(newest["ip"]), int(newest["port"])) if is_up else None
    return Known(master, len(states), is_most=_is_most(states, found))


def left_for(known: Known, now: Address) -> str | None:
    """Why the connection to `now` is to be left. A minority may be behind: it does not count."""
    if known.master is None or not known.is_most or known.master == now:
        return None
    return f"{now[0]}:{now[1]} is not the master any more, {known.master[0]}:{known.master[1]} is"


def is_demoted(error: ResponseError) -> bool:
    """redis-py takes the first word of what it knows; its class says it then."""
    return type(error).__name__ == "ReadOnlyError" or str(error).startswith(NOT_A_MASTER)


def role_in(answer: object) -> str | None:
    """What the server says of itself in its answer to HELLO: no command more, and no right more, is needed.

    While the sentinels have not noticed a demotion, to connect must fail: callers wait between two tries
    to connect, and would not between two writes.
    """
    if not isinstance(answer, Mapping):
        return None
    role = answer.get(b"role", answer.get("role"))
    return role.decode() if isinstance(role, bytes) else role


async def _ask_one(found: Sentinels, host: str, port: int) -> Mapping[str, Any] | None:
    """On a connection of its own: these are asked rarely, and a stale one would cost an answer."""
    try:
        async with (
            asyncio.timeout(ASK_S),
            Redis(host=host, port=port, retry=Retry(NoBackoff(), 0), **_unbounded(found)) as sentinel,
        ):
            state: Any = await sentinel.sentinel_master(found.master)
    except (RedisError, OSError):
        return None
    return dict(state)


def _unbounded(found: Sentinels) -> dict[str, Any]:
    """Without redis-py's own timeout around each read and write: `asyncio.timeout` is around all of it."""
    return sentinel_options(found) | {"socket_timeout": None, "socket_connect_timeout": None}


def _is_most(states: Iterable[Mapping[str, Any]], found: Sentinels) -> bool:
    return sum(1 for _ in states) > len(found.hosts) // 2


def _chosen(known: Known, found: Sentinels) -> Address:
    if known.master is None:
        why = "is down, and no other is chosen yet" if known.answers else "is not known: no sentinel answers for it"
        raise RedisConnectionError(f"the master of {found.shown()} {why}")
    return known.master

"""Tells the orchestrator what happened here, on this node's own Redis stream.

Events of one turn of the loop, and whatever gathers while one write is under way, become one stream
entry. An outcome is kept and sent again until it is settled; Redis may be away for any time. Refuses
to write the journal: `execute` does, before it reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import structlog
from redis.exceptions import RedisError

from tasks.clock import Clock
from tasks.ledger_events import FIELD, Asked, Progress, Resolved, Saved, Started, pack
from worker.admit import Ref

RESEND_S, RESEND_CAP_S = 5.0, 60.0
"""An outcome that was not acknowledged for so long is sent again; then after twice as long, up to the cap:
an orchestrator that is away for a night must not find its Redis full of the same outcomes."""
KEEP_S = 600.0
"""Older entries may go from the stream, by the clock of Redis: what they say and is not settled was said again."""
assert KEEP_S > 5 * RESEND_CAP_S, "an unread outcome is always on the stream"
SWEEP_S = 1.0
GATHER_S = 0.002
"""Between two writes: a light load never waits for it, a heavy one writes 500 times a second at most."""
ANSWER_S = 5.0
"""A Redis that takes longer for one write is as good as away."""
RETRY_S = 0.5
"""Between two tries while Redis is away: it is near, and outcomes wait."""
ENTRY_BYTES_MAX = 1_000_000
"""Of one stream entry: bounds the reader's step and what a resend costs in one write."""
_log = structlog.get_logger()


class Stream(Protocol):
    """The one Redis command needed."""

    def execute_command(self, *args: bytes | str) -> Awaitable[object]:
        """Send and await the reply."""
        ...


@dataclass(slots=True)
class _Sent:
    bare: bytes
    at_s: float
    batch: int
    """The write that it goes with."""
    wait_s: float = RESEND_S


class Reporter:
    """The writer of one node's events stream."""

    def __init__(
        self, redis: Stream, stream: str, clock: Clock, seal: Callable[[bytes], tuple[bytes, bytes]] | None = None
    ) -> None:
        """`seal`: field and value of an entry, from what it says; plain without one."""
        self.is_redis_up = True
        self._seal = seal or _plain
        self._redis = redis
        self._stream = stream
        self._clock = clock
        self._outbox: list[bytes] = []
        self._unsettled: dict[Ref, _Sent] = {}
        self._parting: list[_Sent] = []
        """Of no more use as outcomes, and never written yet: what they cost is due all the same."""
        self._taken = self._written = 0
        """Numbers of writes: begun last, and done last."""
        self._newest_ms = 0
        """Of the stream's entries, by the clock of Redis."""
        self._sent_at_s = 0.0
        self._wake = asyncio.Event()

    @property
    def unsettled(self) -> int:
        """Outcomes sent, or to be sent, and not acknowledged."""
        return len(self._unsettled)

    def tell(self, event: Started | Progress | Saved | Asked | Resolved) -> None:
        """Send once; lost if Redis is away (the outcome and the inventory repeat what matters)."""
        self._put(_bare(pack([event])))

    def finished(self, ref: Ref, packed: bytes) -> None:
        """Send, and again until `settled`. `packed` is what the journal holds: a list of one event."""
        bare = _bare(packed)
        self._unsettled[ref] = _Sent(bare, self._clock.mono_s(), self._taken + 1)
        self._put(bare)

    def settled(self, ref: Ref) -> None:
        """Acknowledged, or superseded: never sent again once it was written."""
        sent = self._unsettled.pop(ref, None)
        if sent is not None and sent.batch > self._written:
            self._parting.append(sent)

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write())
            group.create_task(self._sweep())

    async def flush(self) -> None:
        """Write what is in the outbox now; for the end, when `run` is over."""
        await self._send(self._take())

    def _put(self, bare: bytes) -> None:
        self._outbox.append(bare)
        if len(self._outbox) == 1:
            self._wake.set()

    def _take(self) -> list[bytes]:
        batch, self._outbox = self._outbox, []
        self._taken += 1
        return batch

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            pause_s = self._sent_at_s + GATHER_S - self._clock.mono_s()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            self._sent_at_s = self._clock.mono_s()
            try:
                await self._send(self._take())
            except (RedisError, OSError, TimeoutError) as error:
                await self._on_down(error)

    async def _send(self, batch: list[bytes]) -> None:
        for value in _entries(batch):
            async with asyncio.timeout(ANSWER_S):
                oldest_ms = max(0, self._newest_ms - int(KEEP_S * 1000))
                added = await self._redis.execute_command(
                    "XADD", self._stream, "MINID", "~", str(oldest_ms), "*", *self._seal(value)
                )
                self._newest_ms = _millis(added)
        self._written = self._taken
        self._parting = [sent for sent in self._parting if sent.batch > self._written]
        if batch and not self.is_redis_up:
            self.is_redis_up = True
            _log.info("redis_is_back", stream=self._stream, unsettled=len(self._unsettled))

    async def _on_down(self, error: BaseException) -> None:
        if self.is_redis_up:
            self.is_redis_up = False
            _log.warning(
                "redis_away", stream=self._stream, detail=str(error), effect="outcomes are kept and sent later"
            )
        await asyncio.sleep(RETRY_S)
        self.resend(is_all=True)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.resend()

    def resend(self, *, is_all: bool = False) -> None:
        """Send again what was not acknowledged in time.

        Args:
            is_all: Redis was away. Replaces the outbox: every outcome in it is unsettled, the rest may be lost.
        """
        now_s = self._clock.mono_s()
        if is_all:
            self._outbox.clear()
        for sent in (*self._unsettled.values(), *self._parting):
            if not is_all and now_s - sent.at_s < sent.wait_s:
                continue
            sent.batch = self._taken + 1
            sent.at_s, sent.wait_s = now_s, RESEND_S if is_all else min(RESEND_CAP_S, sent.wait_s * 2)
            self._outbox.append(sent.bare)
        if self._outbox:
            self._wake.set()


def _plain(value: bytes) -> tuple[bytes, bytes]:
    return FIELD, value


def _bare(packed: bytes) -> bytes:
    """The event without the list around it, so that several join into one list without parsing."""
    return packed[1:-1]


def _millis(entry_id: object) -> int:
    text = entry_id.decode() if isinstance(entry_id, bytes) else str(entry_id)
    return int(text.partition("-")[0])


def _entries(batch: list[bytes]) -> Iterator[bytes]:
    """The batch as JSON lists of at most ENTRY_BYTES_MAX (or one event)."""
    start = size = 0
    for index, bare in enumerate(batch):
        if size and size + len(bare) > ENTRY_BYTES_MAX:
            yield b"[" + b",".join(batch[start:index]) + b"]"
            start, size = index, 0
        size += len(bare)
    if batch[start:]:
        yield b"[" + b",".join(batch[start:]) + b"]"

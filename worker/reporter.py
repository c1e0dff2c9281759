"""Tells the orchestrator what happened here, on this node's own Redis stream.

Events of one turn of the loop, and whatever gathers while one write is under way, become one stream
entry. An outcome is kept and sent again until it is settled; Redis may be away for any time, and so may
the orchestrator: then nobody reads the stream, so nothing is sent again until it renews our lease, what
is not answered is sent again ever more seldom, and the stream is bounded in bytes. What is cut off
unread is still in the journal. Refuses to write the journal: `execute` does, before it reports.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import structlog
from redis.exceptions import RedisError

from tasks.clock import Clock
from tasks.ledger_events import FIELD, Progress, Started, pack
from worker.admit import Ref

RESEND_S = 5.0
"""An outcome that was not acknowledged for so long is sent again; then after twice the time, and so on."""
RESEND_CAP_S = 60.0
STREAM_BYTES_MAX = 64_000_000
"""Of what this process wrote and Redis keeps. What the orchestrator has read it trims itself, long before."""
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


class Reporter:
    """The writer of one node's events stream.

    Args:
        redis: the connection.
        stream: its name.
        clock: monotonic.
        is_heard: whether the orchestrator answered the last renewal.
    """

    def __init__(self, redis: Stream, stream: str, clock: Clock, is_heard: Callable[[], bool] = lambda: True) -> None:
        self.is_redis_up = True
        self._is_heard = is_heard
        self._was_heard = True
        self._resend_wait_s = RESEND_S
        self._resend_at_s = 0.0
        self._written: deque[int] = deque()
        """Sizes of the newest entries."""
        self._written_bytes = 0
        self._redis = redis
        self._stream = stream
        self._clock = clock
        self._outbox: list[bytes] = []
        self._unsettled: dict[Ref, tuple[bytes, float]] = {}
        self._sent_at_s = 0.0
        self._wake = asyncio.Event()

    @property
    def unsettled(self) -> int:
        """Outcomes sent, or to be sent, and not acknowledged."""
        return len(self._unsettled)

    def tell(self, event: Started | Progress) -> None:
        """Send once; lost if Redis is away (the outcome and the inventory repeat what matters)."""
        self._put(_bare(pack([event])))

    def finished(self, ref: Ref, packed: bytes) -> None:
        """Send, and again until `settled`. `packed` is what the journal holds: a list of one event."""
        bare = _bare(packed)
        self._unsettled[ref] = (bare, self._clock.mono_s())
        self._put(bare)

    def settled(self, ref: Ref) -> None:
        """Acknowledged, or superseded: never sent again."""
        if self._unsettled.pop(ref, None) is not None:
            self._be_prompt()

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
                await self._redis.execute_command("XADD", self._stream, *self._bound(len(value)), "*", FIELD, value)
        if batch and not self.is_redis_up:
            self.is_redis_up = True
            _log.info("redis_is_back", stream=self._stream, unsettled=len(self._unsettled))

    def _bound(self, size_bytes: int) -> tuple[str, ...]:
        """Options of XADD: nothing is trimmed until we ourselves have written too much."""
        self._written.append(size_bytes)
        self._written_bytes += size_bytes
        if self._written_bytes <= STREAM_BYTES_MAX:
            return ()
        while self._written_bytes > STREAM_BYTES_MAX and len(self._written) > 1:
            self._written_bytes -= self._written.popleft()
        return ("MAXLEN", str(len(self._written)))

    def _be_prompt(self) -> None:
        """The orchestrator is there: what it has not answered soon is lost."""
        self._resend_wait_s = RESEND_S
        self._resend_at_s = min(self._resend_at_s, self._clock.mono_s() + RESEND_S)

    async def _on_down(self, error: BaseException) -> None:
        if self.is_redis_up:
            self.is_redis_up = False
            _log.warning(
                "redis_away", stream=self._stream, detail=str(error), effect="outcomes are kept and sent later"
            )
        await asyncio.sleep(RETRY_S)
        self._resend(older_than_s=0.0)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._resend(older_than_s=RESEND_S)

    def _resend(self, older_than_s: float) -> None:
        """Replaces the outbox after a failed write: every outcome in it is unsettled, and the rest may be lost."""
        now_s = self._clock.mono_s()
        if older_than_s > 0.0 and not self._may_resend(now_s):
            return
        late = [ref for ref, (_, sent_s) in self._unsettled.items() if now_s - sent_s >= older_than_s]
        if not late:
            return
        if older_than_s == 0.0:
            self._outbox.clear()
        else:
            self._resend_wait_s = min(RESEND_CAP_S, self._resend_wait_s * 2)
            self._resend_at_s = now_s + self._resend_wait_s
        for ref in late:
            bare, _ = self._unsettled[ref]
            self._unsettled[ref] = (bare, now_s)
            self._outbox.append(bare)
        self._wake.set()

    def _may_resend(self, now_s: float) -> bool:
        was_heard, self._was_heard = self._was_heard, self._is_heard()
        if not self._was_heard:
            return False
        if not was_heard:
            # It reads what is in the stream first, and answers: only then is anything late.
            self._resend_wait_s, self._resend_at_s = RESEND_S, now_s + RESEND_S
        return now_s >= self._resend_at_s


def _bare(packed: bytes) -> bytes:
    """The event without the list around it, so that several join into one list without parsing."""
    return packed[1:-1]


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

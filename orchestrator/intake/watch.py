"""Whoever waits for an Invocation: subscribe, then read the ledger, then re-read it now and then.

Owns waiters and live event streams of this process; refuses to decide anything. A missed telling
(another replica settled it) costs `REREAD_S`, never the answer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator.happenings import (
    Accepted,
    ApprovalAnswered,
    ApprovalAsked,
    AttemptEnded,
    AttemptReleased,
    AttemptRunning,
    Ended,
    Happening,
    ModelsUsed,
    Progressed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

REREAD_S = 5.0
QUEUE_MAX_EVENTS = 256
"""Events a slow reader may fall behind; the oldest progress is dropped past it, never the end."""
ENDED_KEPT = 4096
"""Recently ended Invocations that answer a late waiter without a read of the ledger."""
ENDED_KEPT_BYTES = 32 * 1024 * 1024
"""Of their results together: each may be as long as the inline limit."""


class Watch:
    """A listener of `Happenings` that wakes waiters."""

    def __init__(self) -> None:
        self._waiters: defaultdict[str, set[asyncio.Future[Ended | None]]] = defaultdict(set)
        self._readers: defaultdict[str, set[asyncio.Queue[Happening]]] = defaultdict(set)
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self.is_over = False
        """Nothing is told here any more: the process ends."""
        self._ended_bytes = 0

    def hear(self, happening: Happening) -> None:
        """Wake whoever this concerns."""
        match happening:
            case Ended():
                self._keep(happening)
                for waiter in self._waiters.pop(happening.invocation_id, ()):
                    if not waiter.done():
                        waiter.set_result(happening)
                self._pass(happening.invocation_id, happening)
            case (
                AttemptReleased()
                | AttemptRunning()
                | AttemptEnded()
                | Progressed()
                | ApprovalAsked()
                | ApprovalAnswered()
            ):
                if self._readers:
                    self._pass(happening.invocation_id, happening)
            case Accepted() | ModelsUsed():
                return

    def end(self) -> None:
        """Wake whoever waits: they are to ask again, where it will be told."""
        self.is_over = True
        for waiter in [waiter for waiters in self._waiters.values() for waiter in waiters]:
            if not waiter.done():
                waiter.set_result(None)

    def ended(self, invocation_id: str) -> Ended | None:
        """How it ended, if that was told lately."""
        return self._ended.get(invocation_id)

    async def wait(self, invocation_id: str, timeout_s: float) -> Ended | None:
        """The end, or None after `timeout_s` without having been told."""
        waiter: asyncio.Future[Ended | None] = asyncio.get_running_loop().create_future()
        self._waiters[invocation_id].add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            return None
        finally:
            self._forget(invocation_id, waiter)

    @contextmanager
    def reading(self, invocation_id: str) -> Iterator[asyncio.Queue[Happening]]:
        """A queue of what happens to one Invocation from now on."""
        queue: asyncio.Queue[Happening] = asyncio.Queue()
        self._readers[invocation_id].add(queue)
        try:
            yield queue
        finally:
            self._readers[invocation_id].discard(queue)
            if not self._readers[invocation_id]:
                del self._readers[invocation_id]

    def _pass(self, invocation_id: str, happening: Happening) -> None:
        for queue in self._readers.get(invocation_id, ()):
            if queue.qsize() >= QUEUE_MAX_EVENTS and isinstance(happening, Progressed):
                continue
            queue.put_nowait(happening)

    def _keep(self, ended: Ended) -> None:
        if ended.invocation_id in self._ended:
            self._ended_bytes -= _bytes(self._ended.pop(ended.invocation_id))
        self._ended[ended.invocation_id] = ended
        self._ended_bytes += _bytes(ended)
        while len(self._ended) > ENDED_KEPT or self._ended_bytes > ENDED_KEPT_BYTES:
            _, oldest = self._ended.popitem(last=False)
            self._ended_bytes -= _bytes(oldest)

    def _forget(self, invocation_id: str, waiter: asyncio.Future[Ended | None]) -> None:
        waiters = self._waiters.get(invocation_id)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[invocation_id]


def _bytes(ended: Ended) -> int:
    """About: its result is all that can be long."""
    return 0 if ended.outcome is None else len(ended.outcome.result_json or "")

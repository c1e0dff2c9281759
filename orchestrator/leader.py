"""The leader lease, and the loops only the leader runs.

One epoch per leadership. Losing it, or not being able to prove it, stops every loop at once; what
was decided but not committed is refused by the ledger, because the commit names the epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from tasks.errors import FleetError

log = structlog.get_logger("mcpfleet.leader")
Loop = Callable[[], Awaitable[None]]


class Epochs(Protocol):
    """The ledger's leader row."""

    async def take_epoch(self, holder: str, ttl_s: float) -> int | None: ...
    async def renew_epoch(self, holder: str, epoch: int, ttl_s: float) -> bool: ...


class Leadership:
    """Holds the lease and runs the loops while it is held."""

    def __init__(
        self,
        *,
        epochs: Epochs,
        holder: str,
        ttl_s: float,
        gained: Callable[[int], Awaitable[None]],
        lost: Callable[[], None],
        loops: Sequence[Loop],
    ) -> None:
        self._epochs, self._holder, self._ttl_s = epochs, holder, ttl_s
        self._gained, self._lost, self._loops = gained, lost, loops
        self.is_leader = asyncio.Event()
        self.is_over = asyncio.Event()
        """Led once and no longer: what this process has in memory is stale, so it should end."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                epoch = await self._epochs.take_epoch(self._holder, self._ttl_s)
                if epoch is not None:
                    await self._lead(epoch)
            except FleetError as error:
                log.warning("leadership_unavailable", error=error.message)
            except Exception:
                log.exception("leadership_failed")
            await asyncio.sleep(self._ttl_s / 6)

    async def _lead(self, epoch: int) -> None:
        log.info("leadership_gained", epoch=epoch)
        running: list[asyncio.Task[None]] = []
        try:
            await self._gained(epoch)
            running = [asyncio.create_task(_run(loop)) for loop in self._loops]
            self.is_leader.set()
            while True:
                await asyncio.sleep(self._ttl_s / 3)
                if not await self._epochs.renew_epoch(self._holder, epoch, self._ttl_s):
                    return
        finally:
            self.is_leader.clear()
            self.is_over.set()
            self._lost()
            for task in running:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*running, return_exceptions=True)
            await self._hand_over(epoch)
            log.info("leadership_ended", epoch=epoch)

    async def _hand_over(self, epoch: int) -> None:
        """Whoever comes next need not wait for the lease to end."""
        try:
            await self._epochs.renew_epoch(self._holder, epoch, 0.0)
        except FleetError as error:
            log.info("lease_not_handed_over", error=error.message)


async def _run(loop: Loop) -> None:
    await loop()


def every(period_s: float, work: Loop, name: str) -> Loop:
    """A loop that calls `work` again and again; one failed call is logged and costs one period."""

    async def loop() -> None:
        while True:
            try:
                await work()
            except FleetError as error:
                log.warning("loop_unavailable", loop=name, error=error.message)
            except Exception:
                log.exception("loop_failed", loop=name)
            await asyncio.sleep(period_s)

    return loop

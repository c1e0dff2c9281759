"""The leader lease, and the loops only the leader runs.

One epoch per leadership. The ledger refuses every write of an epoch that is over. What is done
without the ledger, granting leases to nodes and acknowledging what they told, is done only while
`Proof` holds: as long as no other replica can lead. A leader that cannot prove it pauses; one that
learns of its successor ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from orchestrator.ledger.errors import EpochLost
from tasks.clock import Clock
from tasks.errors import FleetError

log = structlog.get_logger("mcpfleet.leader")
Loop = Callable[[], Awaitable[None]]


class Epochs(Protocol):
    """The ledger's leader row, and its guard."""

    async def take_epoch(self, holder: str, ttl_s: float, address: str | None = None) -> int | None: ...
    async def renew_epoch(self, holder: str, epoch: int, ttl_s: float) -> bool: ...
    async def leader_address(self) -> str | None: ...
    def fence(self, epoch: int) -> None: ...


class Proof:
    """For how long, by this machine's monotonic clock, nobody else can lead."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._until_s = clock, 0.0

    def extend(self, sent_at_s: float, ttl_s: float) -> None:
        """Granted: counted from when it was asked for, so it ends before the ledger's own count does."""
        self._until_s = sent_at_s + ttl_s

    def end(self) -> None:
        """Given up."""
        self._until_s = 0.0

    def holds(self) -> bool:
        """Asked before whatever only a leader may do."""
        return self._clock.mono_s() < self._until_s


class Leadership:
    """Holds the lease and runs the loops while it is held."""

    def __init__(
        self,
        *,
        epochs: Epochs,
        holder: str,
        address: str,
        ttl_s: float,
        proof: Proof,
        clock: Clock,
        gained: Callable[[int], Awaitable[None]],
        proved_again: Callable[[], None],
        lost: Callable[[], None],
        follows: Callable[[str | None], None],
        loops: Sequence[Loop],
    ) -> None:
        self._epochs, self._holder, self._address, self._ttl_s = epochs, holder, address, ttl_s
        self._proof, self._clock = proof, clock
        self._gained, self._proved_again, self._lost, self.loops = gained, proved_again, lost, loops
        self._follows = follows
        """Told where another replica leads, as far as is known."""
        self.is_leader = asyncio.Event()
        self.is_over = asyncio.Event()
        """Led once and no longer: what this process has in memory is stale, so it should end."""
        self._stepping_down = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled, or until it was over."""
        while not self.is_over.is_set():
            try:
                epoch = await self._take()
                if epoch is not None:
                    await self._lead(epoch)
                else:
                    address = await self._epochs.leader_address()
                    self._follows(address if address != self._address else None)
            except FleetError as error:
                log.warning("leadership_unavailable", error=error.message)
            except Exception:
                log.exception("leadership_failed")
            await asyncio.sleep(self._ttl_s / 6)

    def step_down(self) -> None:
        """Let another replica lead at once, while what was asked here is still answered."""
        self._proof.end()
        self.is_over.set()
        self._stepping_down.set()

    async def _take(self) -> int | None:
        sent_at_s = self._clock.mono_s()
        epoch = await self._epochs.take_epoch(self._holder, self._ttl_s, self._address)
        if epoch is not None:
            self._epochs.fence(epoch)
            self._proof.extend(sent_at_s, self._ttl_s)
        return epoch

    async def _lead(self, epoch: int) -> None:
        log.info("leadership_gained", epoch=epoch)
        running: list[asyncio.Task[None]] = []
        self._follows(None)
        try:
            await self._gained(epoch)
            running = [asyncio.create_task(_run(loop)) for loop in self.loops]
            self.is_leader.set()
            while await self._renewed(epoch) and not await self._steps_down_within(self._ttl_s / 3):
                pass
        finally:
            self.is_leader.clear()
            self._proof.end()
            self.is_over.set()
            self._lost()
            for task in running:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*running, return_exceptions=True)
            await self._hand_over(epoch)
            log.info("leadership_ended", epoch=epoch)

    async def _renewed(self, epoch: int) -> bool:
        """False once another leads. A ledger that does not answer says neither: nobody can take over either."""
        was_proved, sent_at_s = self._proof.holds(), self._clock.mono_s()
        try:
            if not await self._epochs.renew_epoch(self._holder, epoch, self._ttl_s):
                return False
        except EpochLost:
            return False
        except FleetError as error:
            log.warning("leadership_not_renewed", error=error.message)
            return True
        self._proof.extend(sent_at_s, self._ttl_s)
        if not was_proved:
            log.info("leadership_proved_again", epoch=epoch)
            self._proved_again()
        return True

    async def _steps_down_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stepping_down.wait()
        return self._stepping_down.is_set()

    async def _hand_over(self, epoch: int) -> None:
        """Whoever comes next need not wait for the lease to end."""
        try:
            await self._epochs.renew_epoch(self._holder, epoch, 0.0)
        except FleetError as error:
            log.info("lease_not_handed_over", error=error.message)


async def _run(loop: Loop) -> None:
    await loop()


class Every:
    """A loop that calls `work` again and again; one failed call is logged and costs one period."""

    def __init__(self, period_s: float, work: Loop, name: str) -> None:
        self.period_s, self._work, self.name = period_s, work, name
        self.ended_at_s: float | None = None
        """When its last round ended, well or not, or its first began, by the event loop's clock; None: it never ran."""

    async def __call__(self) -> None:
        """Until cancelled."""
        now_s = asyncio.get_running_loop().time
        self.ended_at_s = now_s()
        while True:
            try:
                await self._work()
            except FleetError as error:
                log.warning("loop_unavailable", loop=self.name, error=error.message)
            except Exception:
                log.exception("loop_failed", loop=self.name)
            self.ended_at_s = now_s()
            await asyncio.sleep(self.period_s)


def every(period_s: float, work: Loop, name: str) -> Loop:
    """`work` as a loop of the leader."""
    return Every(period_s, work, name)

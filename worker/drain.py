"""The way out: take nothing more, hand back what waits, let what runs finish, settle, leave.

What waits is handed back first, and by the renewals, which need no Redis: it runs elsewhere while this
node finishes its own, and a node that cannot leave in order has nothing in it that never started.
Refuses to end a node whose journal is not empty: then it does not leave, and the orchestrator finds
out by the lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from tasks.clock import Clock
from tasks.errors import FleetError, OrchestratorDown
from tasks.invocation import Lane
from tasks.node import LeaveRequest, Phase
from tasks.node import Ref as WireRef
from tasks.tool import STOP_MAX_S
from worker.admit import Ref
from worker.work import Stop

POLL_S = 0.02
STOP_S = STOP_MAX_S + 10.0
"""For the calls that the deadline stops: until their tools have stopped, or their processes were ended."""
SETTLE_S = 8.0
"""After the last call ended: longer than one resend, so that one lost stream entry does not matter."""
RETRY_S = 0.3
_log = structlog.get_logger()


class Holder(Protocol):
    """The executor, for its end."""

    is_draining: bool

    @property
    def is_idle(self) -> bool:
        """Nothing runs and every outcome is settled."""
        ...

    def counts(self, phase: Phase) -> dict[Lane, int]:
        """Attempts per lane."""
        ...

    def stop_all(self, why: Stop) -> None:
        """Stop what runs."""
        ...

    def hand_back(self) -> list[Ref]:
        """Give up what was not started; everything given up that the orchestrator has not heard of."""
        ...


class Leaving(Protocol):
    """The orchestrator, for goodbye."""

    async def leave(self, request: LeaveRequest) -> None:
        """The last word."""
        ...


async def drain(
    executor: Holder,
    door: Leaving,
    incarnation: str,
    *,
    announce: Callable[[], None],
    deadline_s: float,
    clock: Clock,
) -> bool:
    """Leave the fleet; False where work had to stay behind in the journal.

    Args:
        executor: what this node holds.
        door: the orchestrator.
        incarnation: ours.
        announce: stops consuming, and renews at once: that hands back what waits.
        deadline_s: what runs may finish for so long.
        clock: monotonic.
    """
    executor.is_draining = True
    announce()
    _log.info("draining", deadline_s=deadline_s, running=sum(executor.counts(Phase.RUNNING).values()))
    ends_s = clock.mono_s() + deadline_s
    if not await _until(lambda: not any(executor.counts(Phase.RUNNING).values()), ends_s, clock):
        _log.warning("drain_deadline", running=sum(executor.counts(Phase.RUNNING).values()), effect="they are stopped")
        executor.stop_all(Stop.DRAIN)
        await _until(lambda: not any(executor.counts(Phase.RUNNING).values()), clock.mono_s() + STOP_S, clock)
    if not await _until(lambda: executor.is_idle, clock.mono_s() + SETTLE_S, clock):
        _log.error("not_settled", effect="this node does not leave; its journal is reported at its next start")
        return False
    return await _leave(executor, door, incarnation, clock)


async def _leave(executor: Holder, door: Leaving, incarnation: str, clock: Clock) -> bool:
    returned = tuple(WireRef(invocation=ref[0], fence=ref[1]) for ref in executor.hand_back())
    ends_s = clock.mono_s() + SETTLE_S
    while clock.mono_s() < ends_s:
        try:
            await door.leave(LeaveRequest(incarnation=incarnation, returned=returned))
        except OrchestratorDown as error:
            _log.warning("leave_waits", detail=str(error))
            await asyncio.sleep(RETRY_S)
        except FleetError as error:
            _log.warning("leave_refused", detail=str(error))
            return False
        else:
            _log.info("left", returned=len(returned))
            return True
    return False


async def _until(condition: Callable[[], bool], ends_s: float, clock: Clock) -> bool:
    while not condition():
        if clock.mono_s() >= ends_s:
            return False
        await asyncio.sleep(POLL_S)
    return True

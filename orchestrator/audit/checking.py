"""A look at the whole audit log beside everything else: one at a time, with rests, and how far it is.

Owns the look's task and what the last one found. It takes seconds for a hundred thousand rows, and minutes for
millions: whoever asks is not kept waiting to its end, and ten who ask cost one look. Refuses to know what is sound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from orchestrator.audit.verify import Report
from tasks.clock import Clock
from tasks.errors import FleetError

log = structlog.get_logger("mcpfleet.audit")


@dataclass(frozen=True, slots=True)
class Check:
    """How the look stands that began last; without `began_at` nobody asked since this orchestrator leads."""

    began_at: float | None = None
    ended_at: float | None = None
    rows: int = 0
    """Looked at so far."""
    report: Report | None = None
    error: str = ""
    """Why it did not come to its end."""

    @property
    def is_running(self) -> bool:
        """It has not ended yet."""
        return self.began_at is not None and self.ended_at is None


class Checking:
    """One per audit log."""

    def __init__(self, look: Callable[[Callable[[int], None]], Awaitable[Report]], clock: Clock) -> None:
        """`look`: at all rows; says now and then how many it has seen."""
        self._look, self._clock = look, clock
        self._state = Check()
        self._task: asyncio.Task[None] | None = None
        self._rows = 0

    def state(self) -> Check:
        """As it stands."""
        now = self._state
        return Check(now.began_at, now.ended_at, self._rows, now.report, now.error)

    def begin(self) -> None:
        """From the first row on; where a look goes on already, that one stands for this."""
        if self._task is None or self._task.done():
            self._rows = 0
            self._state = Check(began_at=self._clock.wall_s())
            self._task = asyncio.create_task(self._run())

    async def ended(self, within_s: float) -> None:
        """Until the look has ended, or the time is over; it goes on then."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=within_s)

    async def _run(self) -> None:
        report, error = None, ""
        try:
            report = await self._look(self._saw)
            self._rows = report.rows
        except FleetError as refused:
            error = refused.message
        except Exception:
            log.exception("audit_check_failed")
            error = "an error in the orchestrator; its log has the details"
        self._state = Check(self._state.began_at, self._clock.wall_s(), self._rows, report, error)

    def _saw(self, rows: int) -> None:
        self._rows = rows

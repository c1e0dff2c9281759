"""One attempt in its slot: arguments, deadline, journaled start, lease, the tool, its answer.

Owns the order of these steps. Refuses to queue, and to report: it answers with an Outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import orjson

from tasks.clock import Clock
from tasks.outcome import Outcome
from tasks.spend import Spent
from tasks.tracing import Trace
from worker import outcomes
from worker.approvals import Approvals, OfAttempt, Pause
from worker.blobs import Blobs
from worker.grants import Caller
from worker.journal import Journal, JournalFailed
from worker.keeping import SessionKeeping
from worker.seats import Seat
from worker.upstreams.errors import UpstreamError
from worker.upstreams.upstream import Approver, Keeping
from worker.watch import Watch
from worker.work import Stop, Work


class Upstreams(Protocol):
    """This node's MCP servers."""

    async def call(
        self,
        tool: str,
        arguments: dict[str, object],
        *,
        timeout_s: float,
        meta: dict[str, object] | None,
        invocation: str,
        trace: Trace | None,
        on_progress: Callable[[float, float | None, str | None], None],
        project: str | None = None,
        on_spend: Callable[[Spent], None],
        keeping: Keeping | None = None,
        approver: Approver | None = None,
        caller: Caller | None = None,
    ) -> str:
        """CallToolResult as JSON text; raises UpstreamError. Cancelling the task stops the tool."""
        ...

    def quiet_s(self, tool: str) -> float | None:
        """Seconds since the tool's server was last heard of."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Of results, from the orchestrator."""

    inline_bytes: int
    """Above it a result goes to the blob store."""
    result_bytes: int
    """Above it a result is refused."""
    capsule_bytes: int = 0
    """Above it a session is not saved; 0: none is."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs attempts, each in the asyncio task of its caller."""

    upstreams: Upstreams
    journal: Journal
    blobs: Blobs
    watch: Watch
    clock: Clock
    limits: Limits
    node: str = ""
    approvals: Approvals | None = None

    async def run(self, work: Work, may_start: Callable[[], bool], seat: Seat) -> Outcome | None:
        """How it ended. Nothing is called unless its start is on disk and `may_start` still says so.

        Returns:
            None where the drain's deadline came before the start: it is handed back, that is no outcome.
        """
        delivery = work.delivery
        try:
            arguments = await self._arguments(work)
        except UpstreamError as error:
            return outcomes.failed(error.info)
        if delivery.expires_at is not None and delivery.expires_at <= self.clock.wall_s():
            return outcomes.expired(delivery.tool, was_started=False)
        if work.stop is not None:
            return _before_start(work.stop)
        at = self.clock.wall_s()
        try:
            work.entry, committed = self.journal.started(*work.ref, at)
            await committed
        except JournalFailed as error:
            work.entry = None
            return outcomes.not_journaled(str(error))
        if work.stop is not None:
            return _before_start(work.stop)
        if not may_start():
            return outcomes.lease_over(delivery.tool)
        work.started_at, work.started_s = at, self.clock.mono_s()
        return await self._outcome_of(work, await self._call(work, arguments, seat))

    async def _arguments(self, work: Work) -> dict[str, object]:
        blob = work.delivery.arguments_blob
        if blob is None:
            return work.opened.arguments or {}
        arguments: dict[str, object] = orjson.loads(await self.blobs.fetch(blob))
        return arguments

    async def _call(self, work: Work, arguments: dict[str, object], seat: Seat) -> str | Outcome:
        """The tool's text, or how it ended without one. The only part that may be cancelled."""
        delivery = work.delivery
        limit_s, is_deadline = self._limit_s(work)
        work.is_calling = True
        self.watch.began(work)
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await self.upstreams.call(
                    delivery.tool,
                    arguments,
                    timeout_s=limit_s,
                    meta=work.opened.meta,
                    invocation=delivery.invocation,
                    trace=work.trace,
                    on_progress=lambda *seen: self.watch.progress(work, *seen),
                    project=delivery.project,
                    on_spend=work.spend,
                    keeping=self._keeping(work),
                    approver=self._approver(work, limit, seat),
                    caller=Caller(delivery.caller, delivery.tenant),
                )
        except TimeoutError:
            if is_deadline or self._is_past(delivery.expires_at):
                return outcomes.expired(delivery.tool, was_started=True)
            return outcomes.timed_out(delivery.tool, limit_s)
        except UpstreamError as error:
            return outcomes.failed(error.info)
        except asyncio.CancelledError:
            if work.stop is None:
                raise
            return _stopped(delivery.tool, work.stop)
        finally:
            work.is_calling = False
            self.watch.ended(work)

    def _keeping(self, work: Work) -> SessionKeeping:
        said = work.delivery
        return SessionKeeping(
            node=self.node,
            fence=said.fence,
            limit_bytes=self.limits.capsule_bytes,
            left=said.capsule,
            spent_usd=said.spent_usd,
            blobs=self.blobs,
            tell=partial(self.watch.saved, work),
            until=said.expires_at,
        )

    def _approver(self, work: Work, limit: asyncio.Timeout, seat: Seat) -> Approver | None:
        if self.approvals is None:
            return None
        until = work.delivery.expires_at
        deadline_s = None if until is None else asyncio.get_running_loop().time() + until - self.clock.wall_s()
        return OfAttempt(self.approvals, work.ref, until, Pause(limit, deadline_s), seat)

    def _is_past(self, until: float | None) -> bool:
        return until is not None and until <= self.clock.wall_s()

    def _limit_s(self, work: Work) -> tuple[float, bool]:
        """Seconds it may run, and whether it is the deadline (not the timeout) that says so."""
        delivery = work.delivery
        if delivery.expires_at is None:
            return delivery.timeout_s, False
        left_s = max(0.0, delivery.expires_at - self.clock.wall_s())
        return (left_s, True) if left_s < delivery.timeout_s else (delivery.timeout_s, False)

    async def _outcome_of(self, work: Work, said: str | Outcome) -> Outcome:
        if isinstance(said, Outcome):
            return said
        tool, size = work.delivery.tool, outcomes.size_bytes(said)
        if size > self.limits.result_bytes:
            return outcomes.too_large(tool, size, self.limits.result_bytes)
        outcome = outcomes.of_result(said, tool)
        if size <= self.limits.inline_bytes:
            return outcome
        return Outcome(outcome.ending, result_blob=await self.blobs.keep(said), error=outcome.error)


def _before_start(why: Stop) -> Outcome | None:
    """Nobody cancelled what a drain cut short."""
    return None if why is Stop.DRAIN else outcomes.CANCELLED


def _stopped(tool: str, why: Stop) -> Outcome:
    match why:
        case Stop.DRAIN:
            return outcomes.drained(tool)
        case Stop.CUT_OFF:
            return outcomes.cut_off(tool)
        case _:
            return outcomes.CANCELLED

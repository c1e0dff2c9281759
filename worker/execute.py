"""What this node holds: every attempt, from its delivery until it is settled.

Owns the queues before the slots, and what becomes of an attempt when the lease, the orchestrator or a
drain says so. Refuses to start anything without a good lease and a current term, to run a fence
twice, and to decide on retries. All of it belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

import structlog

from tasks.clock import Clock
from tasks.envelope import Number
from tasks.errors import BadDelivery
from tasks.invocation import Lane
from tasks.ledger_events import Finished, pack
from tasks.node import Held, Phase
from tasks.outcome import Outcome
from tasks.telemetry import bind_trace
from tasks.tracing import Spans
from worker import outcomes
from worker.admit import Admission, Ref, Way
from worker.attempt import Runner
from worker.journal import Journal, Kept
from worker.lanes import LaneQueue, NoPool, PoolGate
from worker.lease import Lease
from worker.seats import Seat
from worker.tracing import process_span, trace_of
from worker.unsettled import Unsettled
from worker.work import Stop, Work

_log = structlog.get_logger()


class Claims(Protocol):
    """Who may run a late-bound delivery."""

    def ask(self, ref: Ref, answer: Callable[[bool], None]) -> None:
        """Answer later, in a batch with others; False also when the orchestrator does not answer."""
        ...


class Meter(Protocol):
    """What is counted."""

    def ended(self, tool: str, outcome: Outcome, took_s: float | None, trace_id: str | None) -> None:
        """One attempt ended; `took_s` is None where the tool never started."""
        ...

    def refused(self, why: str) -> None:
        """One delivery was refused."""
        ...


class Executor:
    """The attempts of one incarnation."""

    def __init__(
        self,
        *,
        admission: Admission,
        slots: dict[Lane, int],
        runner: Runner,
        journal: Journal,
        unsettled: Unsettled,
        claims: Claims,
        meter: Meter,
        clock: Clock,
        spans: Spans | None = None,
    ) -> None:
        self.lease = Lease(admission.term, ttl_s=0.0, sent_at_s=0.0)
        """None yet: nothing starts before the first one is set."""
        self.is_draining = False
        self._is_open = True
        """Not cordoned: more may be taken from the pool's queues."""
        self.gate: PoolGate = NoPool()
        """Replaced where Celery consumes."""
        self._admission = admission
        self._lanes = {lane: LaneQueue[Work](slots.get(lane, 0)) for lane in Lane}
        self._runner = runner
        self._journal = journal
        self._unsettled = unsettled
        self._claims = claims
        self._meter = meter
        self._clock, self._spans = clock, spans
        self._works: dict[Ref, Work] = {}
        """Waiting, running, or ended with the journal's commit still to come."""
        self._early: list[Work] = []
        self._returned: dict[Ref, None] = {}
        """Handed back, and the orchestrator has not heard of it."""

    def held(self) -> tuple[Held, ...]:
        """The inventory: everything waiting, running, or finished and not settled."""
        works = [
            Held(invocation=ref[0], fence=ref[1], phase=work.phase, quiet_s=self._quiet_s(work))
            for ref, work in self._works.items()
            if not work.is_claiming  # not ours yet: the orchestrator would call it a stranger's and void it
        ]
        ended = [Held(invocation=ref[0], fence=ref[1], phase=Phase.FINISHED) for ref in self._unsettled.refs()]
        return (*works, *ended)

    def _quiet_s(self, work: Work) -> float | None:
        return self._runner.upstreams.quiet_s(work.delivery.tool) if work.is_calling else None

    def counts(self, phase: Phase) -> dict[Lane, int]:
        """How many attempts of each lane are waiting or running."""
        counts = dict.fromkeys(Lane, 0)
        for work in self._works.values():
            if work.phase is phase:
                counts[work.delivery.lane] += 1
        return counts

    @property
    def is_idle(self) -> bool:
        """Nothing runs and every outcome is settled; what waits does not count."""
        is_running = any(work.phase is not Phase.WAITING for work in self._works.values())
        return not is_running and not len(self._unsettled)

    def deliver(self, body: str, mac: str) -> None:
        """One message of a Celery queue. Never raises: what is refused is counted and logged."""
        try:
            opened = self._admission.open(body, mac)
            way = self._admission.judge(opened.delivery)
        except BadDelivery as refused:
            self.refuse(refused.why)
            return
        except Exception:  # noqa: BLE001 - the top of a delivery's body: junk must not end the node
            _log.exception("delivery_unreadable")
            self.refuse("form")
            return
        delivery = opened.delivery
        work = Work(delivery, opened, (delivery.invocation, delivery.fence))
        work.trace, work.received_at = trace_of(delivery, self._spans), self._clock.wall_s()
        if work.ref in self._works or work.ref in self._unsettled:
            self.refuse("fence")  # held for longer than it is remembered; late-bound ones have no number
            return
        if way is Way.CLAIM:
            self._claim(work, body, mac)
            return
        self._admission.remember_delivery(delivery)
        self._works[work.ref] = work
        if way is Way.EARLY:
            self._early.append(work)
        else:
            self._enqueue(work)

    def renewed(self, lease: Lease) -> None:
        """A lease was granted: what its term voids is dropped, what waited for it goes on."""
        if lease.term > self.lease.term:
            self._admission.term = lease.term
            self._drop_older(lease.term)
        self.lease = lease
        early, self._early = self._early, []
        for work in early:
            if work.delivery.term <= lease.term:
                self._enqueue(work)
            else:
                self._early.append(work)
        for lane in Lane:
            self._fill(lane)

    def open(self, *, is_open: bool) -> None:
        """Cordoned: others take what is late-bound, or this node would never be idle. Or open again."""
        if is_open is not self._is_open:
            self._is_open = is_open
            for lane in Lane:
                self._fill(lane) if is_open else self._pause(lane)

    def cancel(self, ref: Ref) -> None:
        """Stop it, and report it as cancelled; too late where it has ended."""
        work = self._works.get(ref)
        if work is None:
            self._admission.cancel(ref)
        elif work.is_claiming:
            work.stop = Stop.CANCEL
        elif work.phase is not Phase.WAITING:
            self._stop(work, Stop.CANCEL)
        elif self._unqueue(work):
            self._end(work, outcomes.CANCELLED)

    def void(self, ref: Ref, *, was_told: bool, newest: Number | None = None) -> None:
        """The orchestrator has given this attempt up.

        Args:
            ref: the attempt.
            was_told: the inventory it answers named the attempt, so it is superseded. Otherwise it was
                only missed (lost in transit, it seemed): if it has come and was started since, it runs
                on and the next inventory says so; stopping it unreported could let it run twice.
            newest: number of the newest delivery when that was said.
        """
        self._admission.void(*ref, newest=newest)
        if was_told:  # else it came and ended meanwhile: its outcome is told, the next inventory holds it
            self._unsettled.forget(ref)
        work = self._works.get(ref)
        if work is None:
            return
        if work.phase is Phase.WAITING:
            self._unqueue(work)
            del self._works[ref]
        elif was_told:
            self._stop(work, Stop.VOID)

    def settled(self, refs: Iterable[Ref]) -> None:
        """The orchestrator has these outcomes: the journal may forget them."""
        for ref in refs:
            self._unsettled.forget(ref)

    def recover(self, kept: Iterable[Kept]) -> None:
        """Take over what an earlier process finished and nobody acknowledged."""
        rows = list(kept)
        for row in rows:
            self._admission.remember(row.invocation, row.fence)
        self._unsettled.recover(rows)

    def stop_all(self, why: Stop) -> None:
        """Tell every running call to stop; what has a slot and was not started is handed back."""
        for work in list(self._works.values()):
            self._stop(work, why)
            if work.stop is Stop.DRAIN and work.entry is None:
                self._give_back(work)

    def known(self, inventory: Iterable[Held]) -> None:
        """The orchestrator has heard that these run."""
        for held in inventory:
            work = self._works.get((held.invocation, held.fence))
            if work is not None and held.phase is Phase.RUNNING:
                work.is_known = True

    def cut_off(self) -> None:
        """The orchestrator cannot be reached: end what another node may go on with by now. Called again and again."""
        over_s = self._clock.mono_s() - self.lease.sent_at_s - self.lease.ttl_s
        for work in list(self._works.values()):
            handover_s = work.delivery.handover_s
            if work.stop is None and handover_s is not None and over_s >= handover_s and work.others_may_begin():
                _log.warning("cut_off", tool=work.delivery.tool, invocation=work.ref[0], lease_over_s=round(over_s))
                self._stop(work, Stop.CUT_OFF)

    def hand_back(self) -> list[Ref]:
        """Give up everything that waits; it is never started from now on.

        Returns:
            All that was given up and that the orchestrator has not heard of.
        """
        for work in [work for work in self._works.values() if work.phase is Phase.WAITING]:
            self._unqueue(work)
            self._give_back(work)
        return list(self._returned)

    def handed_back(self, refs: Iterable[Ref]) -> None:
        """The orchestrator has heard of these."""
        for ref in refs:
            self._returned.pop(ref, None)

    def _give_back(self, work: Work) -> None:
        if self._works.pop(work.ref, None) is not None:
            self._returned[work.ref] = None

    def _claim(self, work: Work, body: str, mac: str) -> None:
        lane = work.delivery.lane
        queue = self._lanes[lane]
        if not queue.has_room or not self._may_start() or not self._is_open:
            self._pause(lane)
            self.gate.put_back(body, mac, lane)
            return
        self._admission.remember(*work.ref)
        self._works[work.ref] = work
        work.is_claiming = True
        queue.reserved += 1
        if not queue.has_room:
            self._pause(lane)
        self._claims.ask(work.ref, lambda is_ours: self._claimed(work, is_ours=is_ours))

    def _pause(self, lane: Lane) -> None:
        self._lanes[lane].is_paused = True
        self.gate.pause(lane)

    def _claimed(self, work: Work, *, is_ours: bool) -> None:
        lane = work.delivery.lane
        self._lanes[lane].reserved -= 1
        work.is_claiming = False
        if is_ours and work.ref in self._works:
            if work.stop is Stop.CANCEL:
                self._end(work, outcomes.CANCELLED)
            else:
                self._enqueue(work)
            return
        self._works.pop(work.ref, None)
        self.refuse("claim")
        self._fill(lane)

    def _enqueue(self, work: Work) -> None:
        if self._admission.take_cancel(work.ref):
            self._end(work, outcomes.CANCELLED)
            return
        lane = work.delivery.lane
        self._lanes[lane].waiting.append(work)
        self._fill(lane)

    def _fill(self, lane: Lane) -> None:
        """Start what a slot, the lease and the journal allow."""
        queue = self._lanes[lane]
        queue.seat()
        if self._journal.trouble is not None:
            self._refuse_waiting(queue, self._journal.trouble)
            return
        while queue.can_take and self._may_start():
            work = queue.take()
            work.phase = Phase.RUNNING
            work.task = asyncio.get_running_loop().create_task(self._run(work))
        if queue.is_paused and queue.has_room and self._may_start() and self._is_open:
            queue.is_paused = False
            self.gate.resume(lane)

    def _refuse_waiting(self, queue: LaneQueue[Work], trouble: str) -> None:
        while queue.waiting:
            self._end(queue.waiting.popleft(), outcomes.not_journaled(trouble))

    def _may_start(self) -> bool:
        return not self.is_draining and self._journal.trouble is None and self._has_lease()

    def _has_lease(self) -> bool:
        return self.lease.is_good(self._clock.mono_s())

    async def _run(self, work: Work) -> None:
        """The body of one attempt's task."""
        here = None if work.trace is None or self._spans is None else work.trace.span_id
        bind_trace(work.delivery.trace_id, span_id=here, invocation_id=work.ref[0], fence=work.ref[1])
        lane = work.delivery.lane
        seat = Seat(self._lanes[lane], lambda: self._fill(lane))
        try:
            outcome = await self._runner.run(work, self._has_lease, seat)
        except Exception as error:  # noqa: BLE001 - the top of a task's body
            _log.exception("attempt_failed_in_node", tool=work.delivery.tool)
            outcome = outcomes.node_error(work.delivery.tool, error)
        if outcome is not None and work.spent:
            outcome = replace(outcome, spent=work.spent)
        if work.ref not in self._works:
            pass  # handed back meanwhile: whatever it says was said before its start
        elif outcome is not None:
            self._end(work, outcome)
        else:
            if work.entry is not None:
                self._journal.forget(work.entry)
            self._give_back(work)
        seat.leave()

    def _stop(self, work: Work, why: Stop) -> None:
        """Once only: every renewal repeats a cancel, and a second one would cut the tool's clean-up short."""
        if work.phase is not Phase.RUNNING:
            return
        is_first = work.stop is None
        if is_first or why is Stop.VOID:
            work.stop = why
        if is_first and work.is_calling and work.task is not None:
            work.task.cancel()

    def _end(self, work: Work, outcome: Outcome) -> None:
        """Keep and report the outcome; or forget it all, where it is superseded."""
        took_s = None if work.started_at is None else self._clock.mono_s() - work.started_s
        self._meter.ended(work.delivery.tool, outcome, took_s, work.trace.trace_id if work.trace else None)
        _log.debug("attempt_ended", tool=work.delivery.tool, ending=outcome.ending, took_s=took_s)
        work.phase = Phase.FINISHED
        if self._spans is not None and work.trace is not None and work.trace.is_sampled:
            self._spans.put(process_span(work, outcome, work.trace, self._clock.wall_s()))
        if work.stop is Stop.VOID:
            del self._works[work.ref]
            if work.entry is not None:
                self._journal.forget(work.entry)
            return
        event = pack([Finished(*work.ref, self._clock.wall_s(), work.started_at, outcome, work.saved)])
        self._unsettled.keep(work.ref, work.entry, event, lambda: self._works.pop(work.ref, None) is not None)

    def _unqueue(self, work: Work) -> bool:
        if work in self._early:
            self._early.remove(work)
            return True
        return self._lanes[work.delivery.lane].drop(work)

    def _drop_older(self, term: int) -> None:
        """Released under an older term and not started: void. Claimed ones have no term."""
        for ref, work in list(self._works.items()):
            if work.phase is Phase.WAITING and work.delivery.node is not None and work.delivery.term < term:
                self._unqueue(work)
                del self._works[ref]
                self.refuse("term")

    def refuse(self, why: str) -> None:
        """Count a message of a queue of ours that is no delivery to be run."""
        self._meter.refused(why)
        _log.info("delivery_refused", why=why)

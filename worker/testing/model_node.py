"""A node without processes and sockets: the real lease and admission, and the rules of journal and queue.

What the executor does over many threads and disks is here one step at a time, so that every order of
steps can be tried. `flaws` leaves out single rules, to see that the model of the protocol notices.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from tasks.clock import Clock
from tasks.envelope import Delivery, Number
from tasks.errors import BadDelivery
from tasks.invocation import Lane
from tasks.ledger_events import Finished
from tasks.node import Held, JoinReply, JoinRequest, Offer, Phase, RenewReply, RenewRequest
from tasks.node import Ref as WireRef
from tasks.outcome import Outcome
from worker.admit import Admission, Ref, Way
from worker.lease import Lease

SEEN_MAX = 2
"""So few that every history makes a node forget."""
DONE = Outcome("succeeded", result_json='{"content":[]}')


class NodeFlaw(Enum):
    """A rule that is left out."""

    JOURNAL_DROPPED_EARLY = auto()
    """What ended is forgotten once it was sent, not once it was acknowledged."""
    LEASE_FROM_RECEIPT = auto()
    """The lease is counted from when the reply came, not from when the request went."""
    NUMBERS_PASSED_OVER = auto()
    """What is no longer remembered is taken for new."""


@dataclass(slots=True)
class Disk:
    """What outlives a process: its incarnation, what it started, what it ended and nobody acknowledged."""

    incarnation: str | None = None
    started: set[Ref] = field(default_factory=set)
    ended: dict[Ref, Finished] = field(default_factory=dict)


class ModelNode:
    """One process of a node."""

    def __init__(
        self, offer: Offer, incarnation: str, disk: Disk, clock: Clock, flaws: frozenset[NodeFlaw] = frozenset()
    ) -> None:
        self.offer, self.incarnation = offer, incarnation
        self._disk, self._clock, self._flaws = disk, clock, flaws
        self._heard = self._renewals = 0
        self._early: list[Delivery] = []
        self._queue: dict[Ref, Delivery] = {}
        self.running: dict[Ref, Delivery] = {}
        self._admission: Admission | None = None
        self._lease: Lease | None = None

    @property
    def is_joined(self) -> bool:
        """The reply to its join came."""
        return self._lease is not None

    def join(self) -> JoinRequest:
        """What it says at its start, from its journal."""
        resumes = self._disk.incarnation
        return JoinRequest(
            incarnation=self.incarnation,
            offer=self.offer,
            resumes=resumes,
            interrupted=_wire(self._disk.started),
            finished=_wire(self._disk.ended),
        )

    def joined(self, reply: JoinReply, sent_at_s: float) -> list[Finished]:
        """It is a member; answers what it tells of an earlier process."""
        key, pool_key = bytes.fromhex(reply.delivery_key), bytes.fromhex(reply.pool_key)
        self._admission = Admission(
            node=self.offer.name,
            incarnation=self.incarnation,
            key=key,
            pool_key=pool_key,
            term=reply.term,
            seen_max=SEEN_MAX,
        )
        self._lease = self._granted(reply.term, reply.lease_ttl_s, sent_at_s)
        self._disk.incarnation = self.incarnation
        self._disk.started.clear()
        for ref in self._disk.ended:
            self._admission.remember(*ref)
        return list(self._disk.ended.values())

    def deliver(self, body: str, mac: str) -> None:
        """One message of its queue."""
        if self._admission is None:
            return
        try:
            delivery = self._admission.open(body, mac).delivery
            if NodeFlaw.NUMBERS_PASSED_OVER in self._flaws:
                delivery = replace(delivery, number=None)
            way = self._admission.judge(delivery)
        except BadDelivery:
            return
        self._admission.remember_delivery(delivery)
        if way is Way.EARLY:
            self._early.append(delivery)
        else:
            self._queue[delivery.invocation, delivery.fence] = delivery

    def start(self) -> Delivery | None:
        """Begin the oldest call that waits here, if the lease and a slot allow it."""
        is_free = len(self.running) < self.offer.slots[Lane.TOOLS]
        if self._lease is None or not self._queue or not is_free or not self._lease.is_good(self._clock.mono_s()):
            return None
        ref = next(iter(self._queue))
        delivery = self.running[ref] = self._queue.pop(ref)
        self._disk.started.add(ref)
        return delivery

    def finish(self, ref: Ref) -> Finished:
        """A tool answered: journaled, then told."""
        del self.running[ref]
        self._disk.started.discard(ref)
        now_s = self._clock.wall_s()
        event = Finished(*ref, now_s, now_s, DONE)
        if NodeFlaw.JOURNAL_DROPPED_EARLY not in self._flaws:
            self._disk.ended[ref] = event
        return event

    def unsettled(self) -> list[Finished]:
        """What it tells again."""
        return list(self._disk.ended.values())

    def settled(self, ref: Ref) -> None:
        """Acknowledged."""
        self._disk.ended.pop(ref, None)

    def renewal(self) -> RenewRequest:
        """The next request, as of now."""
        waiting = [Held(invocation=d.invocation, fence=d.fence, phase=Phase.WAITING) for d in self._early]
        waiting += [Held(invocation=ref[0], fence=ref[1], phase=Phase.WAITING) for ref in self._queue]
        running = [Held(invocation=ref[0], fence=ref[1], phase=Phase.RUNNING) for ref in self.running]
        ended = [Held(invocation=ref[0], fence=ref[1], phase=Phase.FINISHED) for ref in self._disk.ended]
        inventory = (*waiting, *running, *ended)
        self._renewals += 1
        return RenewRequest(incarnation=self.incarnation, number=self._renewals, inventory=inventory, heard=self._heard)

    def hear(self, request: RenewRequest, reply: RenewReply, sent_at_s: float) -> None:
        """The reply to a renewal: what to forget and to stop first, then the lease."""
        told = {(line.invocation, line.fence) for line in request.inventory}
        for one in reply.settled:
            self.settled((one.invocation, one.fence))
        for one in reply.void:
            self._void((one.invocation, one.fence), told, reply.newest)
        assert self._admission is not None
        if reply.term > self._admission.term:
            self._admission.term = reply.term
            self._queue = {ref: d for ref, d in self._queue.items() if d.term >= reply.term}
        self._lease = self._granted(reply.term, reply.lease_ttl_s, sent_at_s)
        ready = [d for d in self._early if d.term == reply.term]
        self._early = [d for d in self._early if d.term > reply.term]
        self._queue |= {(d.invocation, d.fence): d for d in ready}
        self._heard = reply.number

    def _void(self, ref: Ref, told: set[Ref], newest: Number | None) -> None:
        assert self._admission is not None
        self._admission.void(*ref, newest=newest)
        if ref in told:
            self.settled(ref)
        self._queue.pop(ref, None)
        self._early = [d for d in self._early if (d.invocation, d.fence) != ref]
        if ref in told and self.running.pop(ref, None) is not None:
            self._disk.started.discard(ref)

    def _granted(self, term: int, ttl_s: float, sent_at_s: float) -> Lease:
        from_s = self._clock.mono_s() if NodeFlaw.LEASE_FROM_RECEIPT in self._flaws else sent_at_s
        return Lease(term, ttl_s, from_s)


def _wire(refs: set[Ref] | dict[Ref, Finished]) -> tuple[WireRef, ...]:
    return tuple(WireRef(invocation=invocation, fence=fence) for invocation, fence in sorted(refs))

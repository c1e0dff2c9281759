"""A node's membership: join, renew the lease with the inventory, and pass on what the replies say.

Refuses to start or stop calls itself: it tells the executor. A node that cannot renew keeps what runs
running, starts nothing new, and keeps trying.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import count
from typing import Protocol

import structlog

from tasks.clock import Clock
from tasks.errors import NotAllowed, OrchestratorDown, Permanent
from tasks.node import (
    RENEW_EVERY_S,
    ApprovalAnswer,
    Held,
    JoinReply,
    JoinRequest,
    Load,
    NodeState,
    Offer,
    Ref,
    RenewReply,
    RenewRequest,
    SealTerms,
)
from worker.admit import Ref as RefPair
from worker.door import Refused
from worker.grants import Grants
from worker.lease import Lease

JOIN_FIRST_S = 0.2
JOIN_CAP_S = 5.0
"""Between two tries to join: the orchestrator may start after its nodes."""
RETRY_S = 0.2
"""After a renewal that failed at once; one that timed out is followed by the next without a pause."""
_log = structlog.get_logger()


class Superseded(Permanent):
    """The orchestrator no longer knows this incarnation."""

    code = "superseded"

    def __init__(self, node: str) -> None:
        super().__init__(
            f"the orchestrator no longer knows this incarnation of node {node!r}: another process joined under "
            "its name, the fleet forgot it, or its enrolment was revoked; this process stops. Started again it joins, "
            "unless another one has the name by then"
        )


class FleetTime(Clock, Protocol):
    """The node's clock, as answers teach it the orchestrator's."""

    def learn(self, fleet_wall_s: float | None, *, sent_at_s: float) -> None:
        """An answer has just come."""
        ...


class Renewals(Protocol):
    """The orchestrator, for leases."""

    async def join(self, request: JoinRequest) -> JoinReply:
        """Become a member."""
        ...

    async def renew(self, request: RenewRequest) -> RenewReply:
        """Stay one."""
        ...


class Holder(Protocol):
    """The executor, as the orchestrator's replies move it."""

    def held(self) -> tuple[Held, ...]:
        """The inventory."""
        ...

    def renewed(self, lease: Lease) -> None:
        """Granted."""
        ...

    def cancel(self, ref: RefPair) -> None:
        """Stop it."""
        ...

    def void(self, ref: RefPair, *, was_told: bool, newest: tuple[int, int] | None = None) -> None:
        """Given up."""
        ...

    def hand_back(self) -> list[RefPair]:
        """Give up what was not started; everything given up that the orchestrator has not heard of."""
        ...

    def handed_back(self, refs: Iterable[RefPair]) -> None:
        """It has heard of these."""
        ...

    def known(self, inventory: Iterable[Held]) -> None:
        """It was told of these."""
        ...

    def cut_off(self) -> None:
        """It could not be reached."""
        ...

    def settled(self, refs: Iterable[RefPair]) -> None:
        """Acknowledged."""
        ...


class Keys(Protocol):
    """What this node seals and opens with."""

    @property
    def id(self) -> str:
        """Names them."""
        ...

    def take(self, terms: SealTerms | None) -> None:
        """New ones, if any."""
        ...


async def join(
    door: Renewals, request: JoinRequest, clock: FleetTime, draw: Callable[[], float]
) -> tuple[JoinReply, Lease]:
    """Join, however long it takes until the orchestrator is there.

    Raises:
        NotAllowed, Refused: trying again cannot help.
    """
    wait_s, numbers = JOIN_FIRST_S, count(1)
    while True:
        sent_at_s = clock.mono_s()
        try:
            reply = await door.join(request.model_copy(update={"number": next(numbers)}))
        except OrchestratorDown as error:
            pause_s = wait_s * (0.5 + draw() / 2)
            _log.warning("join_waits", detail=str(error), again_in_s=round(pause_s, 2))
            await asyncio.sleep(pause_s)
            wait_s = min(JOIN_CAP_S, wait_s * 2)
        else:
            _log.info("joined", node=reply.node, term=reply.term, queues=reply.queues)
            if clock.mono_s() - sent_at_s > RENEW_EVERY_S:  # it waited for an orchestrator that was starting
                return reply, Lease(reply.term, 0.0, sent_at_s)  # the first renewal teaches the clock, then work begins
            clock.learn(reply.now, sent_at_s=sent_at_s)
            return reply, Lease(reply.term, reply.lease_ttl_s, sent_at_s)


class Membership:
    """The renewals of one incarnation."""

    def __init__(
        self,
        *,
        door: Renewals,
        node: str,
        incarnation: str,
        renew_every_s: float,
        executor: Holder,
        offer: Callable[[], Offer],
        load: Callable[[], Load],
        on_state: Callable[[NodeState], None],
        on_answers: Callable[[Iterable[ApprovalAnswer]], None] = lambda _: None,
        grants: Grants | None = None,
        on_secrets: Callable[[str], None] = lambda _: None,
        seals: Keys | None = None,
        clock: FleetTime,
    ) -> None:
        self.is_draining = False
        self.is_reachable = True
        self._door = door
        self._node = node
        self._incarnation = incarnation
        self._renew_every_s = renew_every_s
        self._executor = executor
        self._offer = offer
        self._offered = offer()
        self._load = load
        self._grants = grants or Grants(clock)
        self._on_state, self._on_answers, self._on_secrets, self._seals = on_state, on_answers, on_secrets, seals
        self._clock = clock
        self._heard = self._number = 0
        self._nudge = asyncio.Event()

    def nudge(self) -> None:
        """Renew now: something changed that the orchestrator should know at once."""
        self._nudge.set()

    async def run(self) -> None:
        """Renew until cancelled.

        Raises:
            Superseded: the orchestrator does not know us any more.
        """
        while True:
            sent_at_s = self._clock.mono_s()
            pause_s = await self._renew(sent_at_s)
            try:
                async with asyncio.timeout(pause_s):
                    await self._nudge.wait()
            except TimeoutError:
                pass
            self._nudge.clear()

    async def _renew(self, sent_at_s: float) -> float:
        """One renewal; answers the seconds until the next."""
        returned = self._executor.hand_back() if self.is_draining else []
        inventory, offer = self._executor.held(), self._offer()
        self._number += 1
        request = RenewRequest(
            incarnation=self._incarnation,
            number=self._number,
            load=self._load(),
            inventory=inventory,
            heard=self._heard,
            is_draining=self.is_draining,
            offer=offer if offer != self._offered else None,
            returned=tuple(Ref(invocation=ref[0], fence=ref[1]) for ref in returned),
            grants=self._grants.version,
            sealed_by=None if self._seals is None else self._seals.id,
        )
        try:
            reply = await self._door.renew(request)
        except (OrchestratorDown, Refused) as error:
            self._not_reached(error)
            return max(RETRY_S, min(self._renew_every_s, self._renew_every_s - (self._clock.mono_s() - sent_at_s)))
        except NotAllowed as error:
            raise Superseded(self._node) from error
        if not reply.granted:
            raise Superseded(self._node)
        self._clock.learn(reply.now, sent_at_s=sent_at_s)
        self._offered = offer
        self._executor.handed_back(returned)
        self._granted(reply, inventory, sent_at_s)
        return max(0.0, self._renew_every_s - (self._clock.mono_s() - sent_at_s))

    def _granted(self, reply: RenewReply, inventory: tuple[Held, ...], sent_at_s: float) -> None:
        if not self.is_reachable:
            self.is_reachable = True
            _log.info("orchestrator_is_back", term=reply.term)
        if self._seals is not None:
            self._seals.take(reply.seal)
        told = {(held.invocation, held.fence) for held in inventory}
        self._executor.settled(_pairs(reply.settled))
        for ref in _pairs(reply.void):
            self._executor.void(ref, was_told=ref in told, newest=reply.newest)
        for ref in _pairs(reply.cancel):
            self._executor.cancel(ref)
        self._executor.known(inventory)
        self._on_answers(reply.answers)
        self._grants.learn(reply.grants)
        self._on_secrets(reply.secrets)
        # Last: it starts what waited for the lease, and that must not be void or cancelled.
        self._executor.renewed(Lease(reply.term, reply.lease_ttl_s, sent_at_s))
        self._heard = reply.number
        self._on_state(reply.state)

    def _not_reached(self, error: Exception) -> None:
        if self.is_reachable:
            self.is_reachable = False
            _log.warning("renewal_failed", detail=str(error), effect="nothing new starts once the lease is over")
        self._executor.cut_off()


def _pairs(refs: Iterable[Ref]) -> list[RefPair]:
    return [(ref.invocation, ref.fence) for ref in refs]

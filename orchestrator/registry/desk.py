"""The node protocol's other end: join, renew, claim, leave.

Owns who is a member and what a renewal means. What becomes of attempts is decided by `Fates`
(orchestrator/settling); what is durable is written through `NodeStore` (orchestrator/ledger).
Source of the protocol: docs/adr/0003-leases.md.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from orchestrator.identity.tokens import bound_digest, new_token
from orchestrator.ledger.values import NodeRow, Outstanding
from orchestrator.registry.inventory import Comparison, compare, speaks_for
from orchestrator.registry.member import Lease, Member, Ref
from orchestrator.registry.roster import Roster
from orchestrator.registry.rows import member_of, row_of
from orchestrator.registry.terms import Broker, Seals, Terms
from orchestrator.registry.turns import Turns, may_follow
from tasks.clock import Clock
from tasks.errors import Late, WrongState
from tasks.grant import GrantNews
from tasks.health import UNHEALTHY
from tasks.invocation import Lane, State
from tasks.node import (
    WIRE_VERSION,
    ApprovalAnswer,
    ClaimReply,
    ClaimRequest,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    NodeState,
    RenewReply,
    RenewRequest,
)
from tasks.node import Ref as WireRef
from tasks.queues import control_stream, events_stream, node_queue, pool_queue

log = structlog.get_logger("mcpfleet.registry")
STALL_S = 1.5
"""A look that comes this much after the last one means that nothing here ran in between."""


class NodeStore(Protocol):
    """What of a node outlives the orchestrator's process."""

    async def save_node(self, row: NodeRow) -> None: ...
    async def forget_node(self, name: str) -> None: ...
    async def claim(self, node: str, incarnation: str, term: int, refs: Sequence[Ref]) -> list[Ref]: ...


class Attempts(Protocol):
    """What was released and is not settled."""

    def of_node(self, node: str) -> list[Outstanding]: ...
    def current(self, invocation_id: str, fence: int) -> Outstanding | None: ...
    def claimed(self, invocation_id: str, fence: int, node: str, incarnation: str, term: int) -> None: ...


class Fates(Protocol):
    """What becomes of attempts."""

    async def lapsed(self, attempts: Sequence[Outstanding], *, node: str) -> None: ...
    async def lost(self, attempts: Sequence[Outstanding], *, code: str, message: str) -> None: ...
    async def disowned(self, attempts: Sequence[Outstanding], *, why: str) -> None: ...
    async def running(self, refs: Sequence[Ref], *, node: str) -> None: ...


class NodeDesk:
    """Satisfies the API's node port."""

    def __init__(
        self,
        *,
        roster: Roster,
        store: NodeStore,
        attempts: Attempts,
        fates: Fates,
        terms: Terms,
        clock: Clock,
        is_late: Callable[[str], bool],
        is_doubtful: Callable[[str], bool],
        on_change: Callable[[], None],
        on_claim: Callable[[str | None, str], None],
        on_left: Callable[[str], None],
        newest: Callable[[], tuple[int, int] | None],
        seals: Seals,
        broker: Broker,
        answers: Callable[[str], tuple[ApprovalAnswer, ...]] = lambda _: (),
        grants: Callable[[str | None], GrantNews | None] = lambda _: None,
        secrets_mark: Callable[[], str] = str,
    ) -> None:
        self._roster, self._store, self._attempts, self._fates = roster, store, attempts, fates
        self._terms, self._clock, self._is_late, self._is_doubtful = terms, clock, is_late, is_doubtful
        self._on_change, self._on_claim, self.on_left, self._newest = on_change, on_claim, on_left, newest
        self._answers, self._secrets_mark, self._seals, self._broker = answers, secrets_mark, seals, broker
        self._grants = grants
        self.turns = Turns()
        self._looked_at_s: float | None = None

    async def join(
        self, request: JoinRequest, check: Callable[[], None] | None = None, certificate: str | None = None
    ) -> JoinReply:
        """Admit a process as a node; an older incarnation of the same name is superseded.

        `check` raises if its bearer may not join, or not any more; its token is bound to `certificate` (thumbprint).

        Raises:
            WrongState: it speaks another wire version.
            Late, NameHeld: a later try of the same process was admitted already; another process has the name.
        """
        offer = request.offer
        if request.wire_version != WIRE_VERSION:
            raise WrongState(offer.name, f"at wire version {request.wire_version}", f"a node of version {WIRE_VERSION}")
        if not self._seals.takes(is_able=request.seals):
            raise WrongState(offer.name, "of a version that cannot open sealed deliveries", "a node of this fleet")
        async with self.turns.of(offer.name):
            if check is not None:
                check()
            return await self._admit(request, certificate)

    async def _admit(self, request: JoinRequest, certificate: str | None) -> JoinReply:
        offer, before = request.offer, self._roster.find(request.offer.name)
        may_follow(request, before)
        wish = NodeState.CORDONED if before and before.wish is NodeState.CORDONED else NodeState.ACTIVE
        token, key = new_token("node"), secrets.token_bytes(32)
        member = Member(
            offer=offer,
            incarnation=request.incarnation,
            delivery_key=key,
            token_digest=bound_digest(token, certificate),
            lease=Lease(before.lease.term + 1 if before else 1, self._clock.mono_s() + self._terms.lease_ttl_s),
            joined_at=self._clock.wall_s(),
            known_since_s=self._clock.mono_s(),
            state=wish,
            wish=wish,
            join_number=request.number,
        )
        await self._store.save_node(row_of(member))
        self._roster.put(member)  # first: what settling sets free may be released to it, and not to who is gone
        await self._settle_earlier(request, before)
        await self._broker.admit(member)
        about = {"pool": offer.pool, "incarnation": request.incarnation, "tools": len(offer.tools)}
        log.info("node_joined", node=offer.name, **about)
        self._on_change()
        return self._reply(member, token)

    async def renew(self, name: str, request: RenewRequest) -> RenewReply:
        """Extend the lease and reconcile what the node holds with what was released to it.

        Raises:
            Late: a later renewal was here before it. What it says is over, and its sender has given it up.
        """
        member = self._roster.find(name)
        is_able = self._seals.takes(is_able=request.sealed_by is not None)
        if member is None or member.incarnation != request.incarnation or not (member.token_digest and is_able):
            return RenewReply(granted=False)
        if 0 < request.number <= member.renewal_number:
            raise Late("renewal", name)
        member.renewal_number = request.number
        await self._take_news(member, request)
        await self._take_back(name, request.returned)
        self._feel_better(member)
        now = self._clock.wall_s()
        member.hear(request.inventory, now)
        heard = request.heard == member.reply_number
        comparison = compare(
            request.inventory,
            self._attempts.of_node(name),
            heard_term=member.reply_term if heard else 0,
            is_doubtful=self._is_doubtful,
            suspects=member.suspects if heard else frozenset(),
            previous_at=member.previous_renewal_at if heard else None,
            now=now,
        )
        member.suspects, member.previous_renewal_at = comparison.suspects, now
        member.reply_number, member.reply_term = member.reply_number + 1, member.lease.term
        await self._apply(member, comparison)
        if not member.token_digest:  # expelled meanwhile
            return RenewReply(granted=False)
        member.lease.until_s = self._clock.mono_s() + self._terms.lease_ttl_s
        return self._renewed(member, comparison, request)

    async def claim(self, name: str, request: ClaimRequest) -> ClaimReply:
        """Late binding: the first node of the pool that asks gets the attempt; one that shall become idle does not."""
        member = self._roster.get(name)
        if member.incarnation != request.incarnation or not member.is_open(self._clock.mono_s()):
            return ClaimReply(granted=())
        refs = [(c.invocation, c.fence) for c in request.claims if self._attempts.current(c.invocation, c.fence)]
        granted = await self._store.claim(name, member.incarnation, member.lease.term, refs)
        for invocation, fence in granted:
            attempt = self._attempts.current(invocation, fence)
            self._on_claim(attempt.project if attempt else None, name)
            self._attempts.claimed(invocation, fence, name, member.incarnation, member.lease.term)
        return ClaimReply(granted=_wire(granted))

    async def leave(self, name: str, request: LeaveRequest) -> None:
        """The node is empty and goes. What it hands back waits again, at no cost in tries."""
        member = self._roster.get(name)
        if member.incarnation != request.incarnation:
            return
        member.state = NodeState.LEFT
        await self._take_back(name, request.returned)
        await self._fates.disowned([a for a in self._attempts.of_node(name) if a.started_at is None], why="node_left")
        await self._fates.lost(self._attempts.of_node(name), code="node_left", message=f"node {name} left while it ran")
        self._roster.remove(name)
        await self._store.forget_node(name)
        self.on_left(name)
        log.info("node_left", node=name, returned=len(request.returned))
        self._on_change()

    async def _take_back(self, name: str, refs: Sequence[WireRef]) -> None:
        returned = {(ref.invocation, ref.fence) for ref in refs}
        held = [a for a in self._attempts.of_node(name) if (a.invocation_id, a.fence) in returned]
        if held:
            await self._fates.disowned(held, why="handed_back")

    async def set_state(self, name: str, state: NodeState) -> None:
        """An operator's wish: cordon, drain, or active again."""
        member = self._roster.get(name)
        member.wish = state
        if member.state is not NodeState.LOST:
            member.state = state
        await self._store.save_node(row_of(member))
        self._roster.changed()
        self._on_change()

    async def expel(self, name: str) -> None:
        """Void the token of what is joined under this name: it is lost at once and cannot renew."""
        async with self.turns.of(name):
            member = self._roster.find(name)
            if member is not None:
                log.warning("node_expelled", node=name, held=len(self._attempts.of_node(name)))
                member.token_digest, member.lease.until_s = "", self._clock.mono_s()
                await self._lose(member)

    async def lapse(self) -> None:
        """Find leases that are over. Called every few hundred milliseconds by the leader."""
        now_s = self._clock.mono_s()
        self._forgive_stall(now_s)
        for member in list(self._roster.members()):
            if member.lease.is_good(now_s):
                continue
            if member.state is not NodeState.LOST and not await self._lose(member):
                continue
            held = [a for a in self._attempts.of_node(member.name) if a.state is not State.UNREACHABLE]
            if held:
                log.warning("lease_lapsed", node=member.name, held=len(held), term=member.lease.term)
                await self._fates.lapsed(held, node=member.name)
                self._on_change()

    def _forgive_stall(self, now_s: float) -> None:
        """Time in which this registry could not serve renewals does not count."""
        before, self._looked_at_s = self._looked_at_s, now_s
        if before is None or now_s - before <= STALL_S:
            return
        log.warning("registry_stalled", stalled_s=round(now_s - before, 1))
        for member in self._roster.members():
            member.lease.until_s += now_s - before

    def forgive(self) -> None:
        """No renewal was answered for a while: every lease is whole again."""
        for member in self._roster.members():
            if member.state is not NodeState.LOST:
                member.lease.until_s = self._clock.mono_s() + self._terms.lease_ttl_s

    async def _lose(self, member: Member) -> bool:
        """Durable first; False when a renewal came in the meantime."""
        await self._store.save_node(replace(row_of(member), state=NodeState.LOST.value, term=member.lease.term + 1))
        if member.lease.is_good(self._clock.mono_s()):
            await self._store.save_node(row_of(member))
            return False
        member.state, member.lease.term = NodeState.LOST, member.lease.term + 1
        member.suspects, member.health = frozenset(), UNHEALTHY
        self._roster.changed()
        self._on_change()
        return True

    def restore(self, rows: Iterable[NodeRow]) -> None:
        """Remember the nodes of an earlier orchestrator process.

        Their leases start anew: time in which no registry could serve renewals does not count.
        """
        for row in rows:
            self._roster.put(member_of(row, now_s=self._clock.mono_s(), lease_ttl_s=self._terms.lease_ttl_s))

    def node_of(self, token_digest: str) -> str | None:
        """Which node a token's digest belongs to."""
        for member in self._roster.members():
            if any(hmac.compare_digest(one, token_digest) for one in member.token_digests):
                return member.name
        return None

    async def _settle_earlier(self, request: JoinRequest, before: Member | None) -> None:
        name = request.offer.name
        held = self._attempts.of_node(name)
        finished = {(ref.invocation, ref.fence) for ref in request.finished}  # it says so itself, on its stream
        if before is None or not speaks_for(request, before.incarnation):
            message = f"node {name} came back without its journal"
            held = [a for a in held if (a.invocation_id, a.fence) not in finished]
            await self._fates.lost(held, code="node_replaced", message=message)
            return
        interrupted = {(ref.invocation, ref.fence) for ref in request.interrupted}
        broken = [a for a in held if (a.invocation_id, a.fence) in interrupted]
        untouched = [a for a in held if (a.invocation_id, a.fence) not in interrupted | finished]
        message = f"node {name} restarted while it ran"
        await self._fates.lost(broken, code="node_restarted", message=message)
        await self._fates.disowned(untouched, why="node_restarted")

    async def _take_news(self, member: Member, request: RenewRequest) -> None:
        member.load, member.reported_at_s = request.load, self._clock.mono_s()
        wanted = member.state
        if member.state is NodeState.LOST:
            wanted = member.wish
            log.info("node_is_back", node=member.name, term=member.lease.term)
        if request.is_draining:
            wanted = NodeState.DRAINING
        if request.offer is not None and (request.offer.name, request.offer.pool) == (member.name, member.offer.pool):
            member.take_offer(request.offer)
        if wanted is not member.state or request.offer is not None:
            member.state = wanted
            member.lease.until_s = self._clock.mono_s() + self._terms.lease_ttl_s
            self._roster.changed()  # before anything is awaited: it names who offers what
            await self._store.save_node(row_of(member))
            self._on_change()

    def _feel_better(self, member: Member) -> None:
        """It renewed: after a lapse that is one of the two in a row that it needs."""
        before, member.health = member.health, member.health.after(is_good=True)
        if not before.is_healthy:
            self._roster.changed()
            self._on_change()

    async def _apply(self, member: Member, comparison: Comparison) -> None:
        lost = [a for a in comparison.disowned if a.term == member.lease.term and a.state is not State.UNREACHABLE]
        void = [a for a in comparison.disowned if a not in lost]
        if void:
            await self._fates.disowned(void, why="older_term")
        if lost:
            await self._fates.disowned(lost, why="disowned")
        back = [(a.invocation_id, a.fence) for a in comparison.returned]
        running = [*comparison.running, *(ref for ref in back if ref not in comparison.running)]
        if running:
            await self._fates.running(running, node=member.name)

    def _renewed(self, member: Member, comparison: Comparison, request: RenewRequest) -> RenewReply:
        held = self._attempts.of_node(member.name)
        return RenewReply(
            granted=True,
            number=member.reply_number,
            term=member.lease.term,
            lease_ttl_s=self._terms.lease_ttl_s,
            state=member.state,
            void=_wire(comparison.void),
            cancel=_wire((a.invocation_id, a.fence) for a in held if a.cancel_requested),
            settled=_wire(comparison.forgotten),
            answers=self._answers(member.name),
            now=self._clock.wall_s(),
            newest=self._newest(),
            grants=self._grants(request.grants),
            secrets=self._secrets_mark(),
            seal=self._seals.news(member, request.sealed_by or ""),
        )

    def _reply(self, member: Member, token: str) -> JoinReply:
        name, pool = member.name, member.offer.pool
        own = [node_queue(name, lane) for lane in Lane if member.slots(lane)]
        shared = [pool_queue(pool, lane) for lane in Lane if member.slots(lane) and self._is_late(pool)]
        return JoinReply(
            node=name,
            node_token=token,
            delivery_key=member.delivery_key.hex(),
            pool_key=self._terms.pool_key(pool).hex(),
            term=member.lease.term,
            lease_ttl_s=self._terms.lease_ttl_s,
            renew_every_s=self._terms.renew_every_s,
            redis_url=self._broker.url_for(member),
            queues=(*own, *shared),
            events_stream=events_stream(name),
            control_stream=control_stream(name),
            inline_limit_bytes=self._terms.inline_limit_bytes,
            result_limit_bytes=self._terms.result_limit_bytes,
            capsule_limit_bytes=self._terms.capsule_limit_bytes,
            now=self._clock.wall_s(),
            seal=self._seals.terms(member),
        )


def _wire(refs: Iterable[Ref]) -> tuple[WireRef, ...]:
    return tuple(WireRef(invocation=invocation, fence=fence) for invocation, fence in refs)

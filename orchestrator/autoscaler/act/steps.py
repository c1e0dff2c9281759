"""One claim, one step further: what is done in each state, and what moves it on.

Every step can be cut off anywhere and done again: what is asked of a cloud or of a node is asked again
until it is so, and the claim moves on, in the ledger first, only when it is. Refuses to decide how many
machines there are, and to know when it is called next: it says how long it may be left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from orchestrator.autoscaler.act.boot_pause import BOOT_TIMEOUT, PROVISIONING_FAILED, STOPPED
from orchestrator.autoscaler.act.looks import Looks
from orchestrator.autoscaler.act.nodes import PRESENT, Nodes
from orchestrator.autoscaler.act.orders import Orders
from orchestrator.autoscaler.act.prices import Prices
from orchestrator.autoscaler.act.reconcile import LAG_S
from orchestrator.autoscaler.act.silence import Silence
from orchestrator.autoscaler.book.claims import Changed, ClaimBook
from orchestrator.autoscaler.cloud.errors import (
    CloudDown,
    CredentialsRefused,
    OrderRefused,
    OutOfCapacity,
    QuotaReached,
)
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Power
from orchestrator.autoscaler.events import Ended, Failed, Joined, LetGo, Tell
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import ClaimState, NodeClaim
from tasks.clock import Clock
from tasks.errors import FleetError
from tasks.node import NodeState

log = structlog.get_logger("mcpfleet.autoscaler")
NOW_S = 0.0
"""At the next step."""
CORDON_SETTLES_S = 2.0
"""A release that was under way when the node was cordoned has reached the books by then."""
LEAVE_LIMIT_S = 300.0
"""An idle node that was told to leave and has not is stuck; its machine is ended all the same."""
CREATE_TRIES = 5
PROVISION_TRIES = 3
TERMINATE_AGAIN_S, TERMINATE_AGAIN_MAX_S = 5.0, 60.0


class Provisioner(Protocol):
    """Makes a machine that answers a node. Done twice is the same as once."""

    async def provision(self, claim: NodeClaim, token: str, environ: Mapping[str, str]) -> None: ...


class Steps:
    """Moves claims on; its caller sees to it that nobody else moves the same claim meanwhile."""

    def __init__(
        self,
        *,
        book: ClaimBook,
        clouds: Mapping[str, CloudProvider],
        nodes: Nodes,
        orders: Orders,
        provisioner: Provisioner,
        looks: Looks,
        prices: Prices,
        silence: Silence,
        policy_of: Callable[[str], ScalePolicy],
        has_notice: Callable[[NodeClaim], bool],
        machine_ttl_s: float,
        clock: Clock,
        tell: Tell,
    ) -> None:
        self._book, self._clouds, self._nodes, self._orders = book, clouds, nodes, orders
        self._provisioner, self._looks, self._prices, self._silence = provisioner, looks, prices, silence
        self._policy_of, self._has_notice, self._machine_ttl_s = policy_of, has_notice, machine_ttl_s
        self._clock, self._tell = clock, tell
        self._provisioned: set[str] = set()
        self._voided: set[str] = set()

    async def advance(self, claim: NodeClaim) -> float:
        """One step; how many seconds it may be left alone.

        Raises:
            FleetError: something did not answer; it stands where it stood, try again.
        """
        match claim.state:
            case ClaimState.BOOTING:
                return await self._boot(claim)
            case ClaimState.PROVISIONING:
                return await self._provision(claim)
            case ClaimState.READY:
                return await self._serve(claim)
            case ClaimState.DRAINING:
                return await self._drain(claim)
            case ClaimState.TERMINATING:
                return await self._terminate(claim)
            case ClaimState.GONE:
                return NOW_S

    async def fail(self, claim: NodeClaim, word: str, text: str) -> NodeClaim:
        """It comes to nothing. Where its machine was never ready, that counts against its pool or rung."""
        log.warning("claim_failed", claim=claim.id, pool=claim.pool, why=word, error=text)
        failed = await self._book.move(
            claim.id,
            ClaimState.TERMINATING,
            failed_with=word if claim.ready_at is None else "",
            failed_at=self._clock.wall_s(),
            error=text,
            reason=text,
        )
        self._tell(Failed(failed))
        return failed

    def waits_for_a_place(self, claim: NodeClaim) -> tuple[str, str] | None:
        """What its next step takes long with; only so many may do the same at once. None: it is short."""
        if claim.state is ClaimState.BOOTING and claim.machine_id is None:
            return ("create", claim.rung.provider)
        is_bare = claim.state is ClaimState.PROVISIONING and claim.id not in self._provisioned
        return ("provision", "") if is_bare and self._needs_provisioning(claim) else None

    async def let_go(self, claim: NodeClaim, reason: str) -> NodeClaim:
        """It is not wanted: a node drains, a machine that has none yet ends."""
        to = ClaimState.DRAINING if claim.state is ClaimState.READY else ClaimState.TERMINATING
        gone = await self._book.move(claim.id, to, reason=reason)
        self._tell(LetGo(gone))
        return gone

    # ---- coming

    async def _boot(self, claim: NodeClaim) -> float:
        if await self._gives_up(claim):
            return NOW_S
        if claim.machine_id is None:
            made = await self._create(claim)
            if made is None:
                return NOW_S
            claim = made
        if await self._joins(claim):
            return NOW_S
        machine = self._listed(claim)
        if machine is None or machine.power is not Power.RUNNING:
            return NOW_S
        address = machine.address or claim.address
        if address or not self._needs_provisioning(claim):
            await self._book.move(claim.id, ClaimState.PROVISIONING, address=address)
        return NOW_S

    async def _create(self, claim: NodeClaim) -> NodeClaim | None:
        """Ask for the machine, with the same order every time."""
        order = await self._orders.order(claim, self._policy_of(claim.pool))
        try:
            machine = await self._cloud(claim).create(order)
        except (OutOfCapacity, QuotaReached, OrderRefused, CredentialsRefused) as refusal:
            await self.fail(claim, refusal.code, refusal.message)
            return None
        except CloudDown as down:
            if claim.failures + 1 < CREATE_TRIES:
                raise
            await self.fail(claim, down.code, down.message)  # it may have been made: terminating looks for it
            return None
        price = self._prices.of(claim.rung)
        changes: dict[str, Changed] = {"machine_id": machine.id, "address": machine.address, "failures": 0, "error": ""}
        if price.eur_h is not None:
            changes |= {"price_eur_h": price.eur_h, "billing_s": price.billing_s}
        return await self._book.note(claim.id, **changes)

    async def _provision(self, claim: NodeClaim) -> float:
        if await self._gives_up(claim) or await self._joins(claim):
            return NOW_S
        if not self._needs_provisioning(claim) or claim.id in self._provisioned:
            return NOW_S
        policy = self._policy_of(claim.pool)
        token = await self._orders.token(claim, policy)
        try:
            await self._provisioner.provision(claim, token, self._orders.environ(claim, policy, token))
        except FleetError as error:
            if claim.failures + 1 < PROVISION_TRIES:
                raise
            await self.fail(claim, PROVISIONING_FAILED, error.message)
            return NOW_S
        self._provisioned.add(claim.id)
        return NOW_S

    async def _gives_up(self, claim: NodeClaim) -> bool:
        """A boot that takes too long, a machine that stopped, or one that is taken away."""
        policy, age_s = self._policy_of(claim.pool), self._clock.wall_s() - claim.created_at
        machine = self._listed(claim)
        if self._has_notice(claim):
            await self.let_go(claim, "its provider takes it away")
        elif machine is not None and machine.power in (Power.STOPPED, Power.ENDING):
            await self.fail(claim, STOPPED, f"its machine is {machine.power.value} and was never a node")
        elif age_s > policy.boot_limit_s:
            word = BOOT_TIMEOUT if claim.machine_id else CloudDown.code
            why = f"no node of it joined within {policy.boot_limit_s:.0f} s"
            await self.fail(claim, word, f"{why} ({claim.error})" if claim.error else why)
        else:
            return False
        return True

    async def _joins(self, claim: NodeClaim) -> bool:
        if self._nodes.state_of(claim.node) not in (NodeState.ACTIVE, NodeState.CORDONED):
            return False
        now = self._clock.wall_s()
        ready = await self._book.move(claim.id, ClaimState.READY, ready_at=now, error="", expires_at=self._expiry())
        self._orders.forget(claim.id)
        self._tell(Joined(ready, now - claim.created_at))
        return True

    def _needs_provisioning(self, claim: NodeClaim) -> bool:
        return self._policy_of(claim.pool).provision != "none" and not claim.rung.is_golden

    # ---- serving and leaving

    async def _serve(self, claim: NodeClaim) -> float:
        if self._has_notice(claim):
            await self.let_go(claim, "its provider takes it away")
        elif (why := self._is_lost(claim, self._nodes.state_of(claim.node))) is not None:
            await self.fail(claim, "", why)
        elif self._nodes.state_of(claim.node) in (NodeState.ACTIVE, NodeState.CORDONED):
            await self._extend(claim)
        return NOW_S

    async def _drain(self, claim: NodeClaim) -> float:
        state = self._nodes.state_of(claim.node)
        if state is None:
            await self._book.move(claim.id, ClaimState.TERMINATING)
        elif (why := self._is_lost(claim, state)) is not None:
            await self.fail(claim, "", why)
        elif state is NodeState.LOST:
            return NOW_S
        elif claim.told_to_leave:
            await self._tell_to_leave(claim, state)
        elif self._has_notice(claim):
            await self._tell_to_leave(await self._book.note(claim.id, told_to_leave=True), state)
        elif state is NodeState.ACTIVE:
            await self._nodes.wish(claim.node, NodeState.CORDONED)
        elif self._is_idle(claim):
            await self._tell_to_leave(await self._book.note(claim.id, told_to_leave=True), state)
        else:
            await self._extend(claim)
        return NOW_S

    def _is_lost(self, claim: NodeClaim, state: NodeState | None) -> str | None:
        """Why nothing more is expected of it; None while its node is there, or may come back."""
        machine = self._listed(claim)
        if state not in PRESENT and machine is not None and machine.power is Power.STOPPED:
            return "its machine stopped"
        return self._silence.too_long(claim, state)

    def _is_idle(self, claim: NodeClaim) -> bool:
        if self._nodes.held(claim.node):
            return False
        return self._silence.cordoned_for_s(claim) >= CORDON_SETTLES_S

    async def _tell_to_leave(self, claim: NodeClaim, state: NodeState) -> None:
        if state is not NodeState.DRAINING:
            await self._nodes.wish(claim.node, NodeState.DRAINING)
        elif self._is_stuck(claim):
            await self.fail(claim, "", f"its idle node has not left within {LEAVE_LIMIT_S:.0f} s")
        else:
            await self._extend(claim)

    def _is_stuck(self, claim: NodeClaim) -> bool:
        return not self._nodes.held(claim.node) and self._silence.draining_for_s(claim) > LEAVE_LIMIT_S

    # ---- ending

    async def _terminate(self, claim: NodeClaim) -> float:
        """Until the cloud says that it is gone."""
        if await self._still_leaves(claim):
            return NOW_S
        if claim.id not in self._voided:  # before the machine is ended: from now on nobody joins under its name
            await self._orders.void(claim)
            self._voided.add(claim.id)
        if claim.machine_id is None:
            return NOW_S  # its order may have been carried out: lists will tell, see `sweep.py`
        cloud = self._cloud(claim)
        await cloud.terminate(claim.machine_id)
        lasted_s = self._clock.wall_s() - claim.created_at
        if await cloud.machine(claim.machine_id) is not None or lasted_s < LAG_S:
            since_s = self._clock.wall_s() - claim.state_at
            return min(TERMINATE_AGAIN_MAX_S, max(TERMINATE_AGAIN_S, since_s / 4))
        await self._gone(claim)
        return NOW_S

    async def _still_leaves(self, claim: NodeClaim) -> bool:
        """A node that joined after all, or has not left, is told to leave before its machine is ended."""
        state = self._nodes.state_of(claim.node)
        if state is None:
            return False
        if state is NodeState.LOST:  # for a moment, perhaps; once it was put out it stays so
            is_over = claim.id in self._voided or not self._nodes.held(claim.node)
            return not is_over and self._silence.too_long(claim, state) is None
        if state is not NodeState.DRAINING:
            await self._nodes.wish(claim.node, NodeState.DRAINING)
        is_idle = not self._nodes.held(claim.node)
        return not (is_idle and self._silence.draining_for_s(claim) > LEAVE_LIMIT_S)

    async def never_made(self, claim: NodeClaim) -> None:
        """It ends, and its cloud has had time enough to list a machine of it.

        Raises:
            FleetError: it stands where it stood, and is found again.
        """
        if not await self._still_leaves(claim):
            await self._orders.void(claim)
            await self._gone(claim)

    async def _gone(self, claim: NodeClaim) -> None:
        """The last proof is there."""
        gone = await self._book.move(claim.id, ClaimState.GONE, terminated_at=self._clock.wall_s())
        self._provisioned.discard(claim.id)
        self._voided.discard(claim.id)
        self._silence.forget(claim.id)
        self._tell(Ended(gone))

    # ---- what is known

    async def _extend(self, claim: NodeClaim) -> None:
        """Its node was heard of: it may live on. Written down twice per time to live, not at each step."""
        if claim.expires_at - self._clock.wall_s() < self._machine_ttl_s / 2:
            await self._book.note(claim.id, expires_at=self._expiry())

    def _expiry(self) -> float:
        return self._clock.wall_s() + self._machine_ttl_s

    def _listed(self, claim: NodeClaim) -> Machine | None:
        look = self._looks.of(claim.rung.provider)
        return None if look is None else look.find(claim.machine_id)

    def _cloud(self, claim: NodeClaim) -> CloudProvider:
        cloud = self._clouds.get(claim.rung.provider)
        if cloud is None:
            raise CloudDown(claim.rung.provider, "the pools file has no such provider any more")
        return cloud

"""Carries decisions out: orders, takes back, lets go; and moves every claim on, each in a task of its own.

Nothing here waits for a cloud: a slow provider holds up its own claims only. The books of what is under
way are the claims themselves; what this process has besides (pauses between tries) may be lost with it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import structlog

from orchestrator.autoscaler.act.alerts import stuck
from orchestrator.autoscaler.act.boot_pause import boot_pause
from orchestrator.autoscaler.act.exclusive import Exclusive
from orchestrator.autoscaler.act.ladder import next_rung
from orchestrator.autoscaler.act.looks import Look, Looks
from orchestrator.autoscaler.act.nodes import Nodes
from orchestrator.autoscaler.act.notices import Notices
from orchestrator.autoscaler.act.prices import Price, Prices
from orchestrator.autoscaler.act.silence import Silence
from orchestrator.autoscaler.act.steps import Steps
from orchestrator.autoscaler.act.sweep import Sweep
from orchestrator.autoscaler.book.claims import ClaimBook
from orchestrator.autoscaler.cloud.provider import CloudProvider
from orchestrator.autoscaler.events import Ordered, TakenBack, Tell
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import COMING, LIVE, ClaimState, Decision, NodeClaim, Rung
from tasks.clock import Clock
from tasks.errors import FleetError, LedgerDown
from tasks.node import NodeState

log = structlog.get_logger("mcpfleet.autoscaler")
AT_ONCE = 5
"""Machines that one cloud is asked for at a time, and machines provisioned at a time."""
STEPS_IN_A_ROW = 4
AGAIN_S, AGAIN_MAX_S = 5.0, 60.0
LOOK_OFTEN_S, LOOK_SELDOM_S = 5.0, 30.0
"""Lists of a cloud: while a machine of ours comes or goes there, and otherwise."""


class Actuator:
    """Between decisions and clouds."""

    def __init__(
        self,
        *,
        book: ClaimBook,
        clouds: Mapping[str, CloudProvider],
        nodes: Nodes,
        steps: Steps,
        sweep: Sweep,
        looks: Looks,
        notices: Notices,
        prices: Prices,
        silence: Silence,
        exclusive: Exclusive,
        machine_ttl_s: float,
        read_at: float,
        clock: Clock,
        tell: Tell,
        leads: Callable[[], bool],
    ) -> None:
        self._book, self._clouds, self._nodes, self._steps, self._sweep = book, clouds, nodes, steps, sweep
        self._looks, self._notices, self._prices, self._silence = looks, notices, prices, silence
        self._exclusive, self._machine_ttl_s, self._read_at = exclusive, machine_ttl_s, read_at
        self._clock, self._tell, self._leads = clock, tell, leads
        self._tasks: set[asyncio.Task[None]] = set()
        self._places: Counter[tuple[str, str]] = Counter()
        self._tries: Counter[str] = Counter()
        self._not_before_s: dict[str, float] = {}

    # ---- decisions

    async def act(self, decision: Decision, policy: ScalePolicy, *, wanted: Sequence[str] = ()) -> None:
        """Towards the target: by ledger writes only; `step` does the rest.

        Args:
            decision: of one pool.
            policy: its.
            wanted: patterns of regions that waiting calls ask for; rungs there come first.

        Raises:
            LedgerDown, EpochLost: part of it was done, and the next decision sees which.
        """
        if decision.is_dry:
            return
        await self._book.resolve()
        await self._let_go(decision, policy)
        missing = decision.target - len(self._book.live(decision.pool))
        if missing > 0:
            missing -= await self._take_back(decision, missing)
            await self._order(decision, policy, missing, wanted)

    async def _let_go(self, decision: Decision, policy: ScalePolicy) -> None:
        """Idle and busy ones alike drain; the busy ones serve what they hold, and may be taken back until then."""
        reason = decision.reasons[-1].text if decision.reasons else f"{decision.target} machines are enough"
        for claim_id in (*decision.victims, *decision.cordon):
            with self._exclusive.hold(claim_id) as is_mine:
                claim = self._book.find(claim_id)
                if not is_mine or claim is None or claim.state not in LIVE:
                    continue
                is_lost = self._notices.has(claim) or self._is_overdue(claim, policy)
                if is_lost or len(self._book.live(decision.pool)) > decision.target:
                    await self._steps.let_go(claim, reason)

    def _is_overdue(self, claim: NodeClaim, policy: ScalePolicy) -> bool:
        return claim.state in COMING and self._clock.wall_s() - claim.created_at > policy.boot_limit_s

    async def _take_back(self, decision: Decision, most: int) -> int:
        """What drains and was not told to leave serves again, the youngest first."""
        unwanted = {*decision.victims, *decision.cordon}
        draining = [c for c in self._book.standing(decision.pool) if c.state is ClaimState.DRAINING]
        taken = 0
        for claim in sorted(draining, key=lambda claim: claim.created_at, reverse=True):
            with self._exclusive.hold(claim.id) as is_mine:
                if taken == most or claim.id in unwanted or not is_mine or not self._may_come_back(claim):
                    continue
                await self._nodes.wish(claim.node, NodeState.ACTIVE)  # first: draining again cordons it again
                self._tell(TakenBack(await self._book.move(claim.id, ClaimState.READY, reason="wanted again")))
                taken += 1
        return taken

    def _may_come_back(self, claim: NodeClaim) -> bool:
        if claim.told_to_leave or self._notices.has(claim):
            return False
        return self._nodes.state_of(claim.node) in (NodeState.ACTIVE, NodeState.CORDONED)

    async def _order(self, decision: Decision, policy: ScalePolicy, most: int, wanted: Sequence[str]) -> None:
        live = self._book.live(decision.pool)
        number = min(most, policy.max_machines - len(live) - self._stuck(policy.pool), self._may_order(policy, live))
        reason = decision.reasons[-1].text if decision.reasons else f"{decision.target} machines are wanted"
        for _ in range(number):
            rung = self.next_rung(policy, wanted)
            if rung is None:
                return
            price = self._prices.of(rung)
            claim = await self._book.order(
                decision.pool,
                rung,
                reason=reason,
                expires_at=self._clock.wall_s() + self._machine_ttl_s,
                price_eur_h=price.eur_h,
                billing_s=price.billing_s,
            )
            log.info("machine_ordered", claim=claim.id, pool=claim.pool, provider=rung.provider, type=rung.type)
            self._tell(Ordered(claim))

    def _may_order(self, policy: ScalePolicy, live: list[NodeClaim]) -> int:
        pause = boot_pause(self._book.all(policy.pool))
        most = None if pause is None else pause.may_order(self._clock.wall_s())
        if most is None:
            return policy.max_machines
        return max(0, most - sum(1 for claim in live if claim.state in COMING))

    def _stuck(self, pool: str) -> int:
        """What can be ordered and not ended would be ordered with every swing of the load."""
        ending = [claim for claim in self._book.standing(pool) if claim.rung.provider in self._clouds]
        return len(stuck(ending, self._clock.wall_s()))

    def next_rung(self, policy: ScalePolicy, wanted: Sequence[str] = ()) -> Rung | None:
        """Where this pool's next machine would be ordered; None where every rung is passed by now."""
        return next_rung(policy, self._book.all(), self._clock.wall_s(), wanted=wanted, read_at=self._read_at)

    def next_price(self, policy: ScalePolicy, wanted: Sequence[str] = ()) -> Price | None:
        """Of the machine that would be ordered next; None where none can be."""
        rung = self.next_rung(policy, wanted)
        return None if rung is None else self._prices.of(rung)

    # ---- steps

    async def look(self) -> None:
        """Ask the clouds what there is and what it costs, and change nothing; `step` does this too.

        A machine on this host ends itself when nobody has listed it for its time to live.
        """
        self._look()

    async def step(self) -> None:
        """Start what is due, in tasks. Called every few seconds; waits for nothing."""
        standing = self._look()
        for look in self._looks.take():
            self._spawn(self._apply(look), f"apply look at {look.provider}")
        self._not_before_s = {c.id: self._not_before_s[c.id] for c in standing if c.id in self._not_before_s}
        for claim in standing:
            place = self._steps.waits_for_a_place(claim)
            if not self._is_due(claim) or (place is not None and self._places[place] >= AT_ONCE):
                continue
            self._spawn(self._advance(claim.id, place), f"claim {claim.id}")
            self._places.update([place] if place is not None else [])

    async def settle(self) -> None:
        """Until nothing is under way."""
        while under_way := self._under_way():
            await asyncio.wait(under_way)

    async def stop(self) -> None:
        """Drop what is under way; the claims say what it was."""
        under_way = self._under_way()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _under_way(self) -> list[asyncio.Task[None]]:
        return [*self._tasks, *self._looks.under_way(), *self._notices.under_way(), *self._prices.under_way()]

    def _look(self) -> list[NodeClaim]:
        standing = self._book.standing()
        for claim in standing:
            self._silence.look(claim, self._nodes.state_of(claim.node))
        moving = {c.rung.provider for c in standing if self._is_moving(c)}
        for provider in self._clouds:
            self._looks.refresh(provider, every_s=LOOK_OFTEN_S if provider in moving else LOOK_SELDOM_S)
        self._prices.refresh()
        self._notices.refresh(standing)
        return standing

    def _is_moving(self, claim: NodeClaim) -> bool:
        """Its cloud has news soon: it comes or ends, or its node fell silent, maybe because its machine is gone."""
        if claim.state in COMING or claim.state is ClaimState.TERMINATING:
            return True
        return self._nodes.state_of(claim.node) is NodeState.LOST

    def _is_due(self, claim: NodeClaim) -> bool:
        if self._exclusive.is_held(claim.id) or not self._leads():
            return False
        return self._clock.mono_s() >= self._not_before_s.get(claim.id, float("-inf"))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _apply(self, look: Look) -> None:
        """Unless an earlier look at this provider is still being applied: then a later one finds the same."""
        with self._exclusive.hold(f"look {look.provider}") as is_mine:
            if not is_mine:
                log.warning("look_passed_by", provider=look.provider, number=look.number)
                return
            try:
                await self._sweep.apply(look)
            except Exception:
                log.exception("look_failed", provider=look.provider)

    async def _advance(self, claim_id: str, place: tuple[str, str] | None) -> None:
        try:
            with self._exclusive.hold(claim_id) as is_mine:
                if is_mine:
                    await self._advance_ours(claim_id)
        finally:
            if place is not None:
                self._places[place] -= 1

    async def _advance_ours(self, claim_id: str) -> None:
        try:
            wait_s = await self._as_far_as_it_goes(claim_id)
        except FleetError as error:
            is_try = not isinstance(error, LedgerDown)
            await self._failed(claim_id, error.message, getattr(error, "retry_after_s", None), is_try=is_try)
        except Exception as error:
            log.exception("claim_step_failed", claim=claim_id)
            await self._failed(claim_id, repr(error), None)
        else:
            self._tries.pop(claim_id, None)
            self._not_before_s[claim_id] = self._clock.mono_s() + wait_s

    async def _as_far_as_it_goes(self, claim_id: str) -> float:
        wait_s = 0.0
        for _ in range(STEPS_IN_A_ROW):
            claim = self._book.find(claim_id)
            if claim is None or claim.state is ClaimState.GONE:
                return wait_s
            wait_s = await self._steps.advance(claim)
            after = self._book.find(claim_id)
            if after is None or after.state is claim.state:
                return wait_s
        return wait_s

    async def _failed(self, claim_id: str, error: str, retry_after_s: float | None, *, is_try: bool = True) -> None:
        """Noted, and tried again later: each time twice as late, a minute at the most, or as late as was asked for.

        A cloud or a machine is given up after so many tries; what our ledger missed is none of theirs.
        """
        self._tries[claim_id] += 1
        pause_s = max(retry_after_s or 0.0, min(AGAIN_MAX_S, AGAIN_S * 2.0 ** min(self._tries[claim_id] - 1, 10)))
        self._not_before_s[claim_id] = self._clock.mono_s() + pause_s
        log.warning("claim_waits", claim=claim_id, error=error, again_in_s=pause_s)
        claim = self._book.find(claim_id)
        if claim is None or claim.state is ClaimState.GONE:
            return
        try:
            await self._book.note(claim_id, failures=claim.failures + is_try, error=error)
        except FleetError as unwritten:
            log.warning("claim_failure_not_noted", claim=claim_id, error=unwritten.message)

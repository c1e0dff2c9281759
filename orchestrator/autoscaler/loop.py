"""The leader's loop: see, decide, fit, act, remember, every few seconds.

Owns the order and the pace. What fails costs one round: machines that come and go are moved on in every
round, whether or not anything could be seen or decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Protocol

import structlog

from orchestrator.autoscaler.act.actuate import Actuator
from orchestrator.autoscaler.act.alerts import claim_alerts, look_alerts, pool_alerts
from orchestrator.autoscaler.act.looks import Looks
from orchestrator.autoscaler.act.sweep import Sweep
from orchestrator.autoscaler.book.claims import ClaimBook
from orchestrator.autoscaler.book.pool_book import PoolBook
from orchestrator.autoscaler.book.scale_log import ROUND_S, ScaleLog
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.decide.limits import not_scaled
from orchestrator.autoscaler.events import Decided, Tell
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.values import LIVE, Decision, Observation, Override, Reason
from tasks.clock import Clock
from tasks.errors import FleetError, Retryable

log = structlog.get_logger("mcpfleet.autoscaler")
WIND_DOWN_S = 5.0
"""For how long whoever stops the fleet is kept waiting."""
SAVE_EVERY_S = 60.0
FORGET_EVERY_S = 3600.0
Decide = Callable[[Observation, ScalePolicy, History, Override | None], Decision]
Fit = Callable[
    [Sequence[Decision], Mapping[str, Observation], Mapping[str, ScalePolicy], FleetLimits], Sequence[Decision]
]


class Sensors(Protocol):
    """What is going on: one Observation per pool that is scaled."""

    def observe(self) -> list[Observation]: ...


class ScaleLoop:
    """Runs while this orchestrator leads, on books that were loaded when it began to. Satisfies what views need."""

    def __init__(
        self,
        *,
        sensors: Sensors,
        decide: Decide,
        fit: Fit,
        actuator: Actuator,
        book: ClaimBook,
        pools: PoolBook,
        sweep: Sweep,
        looks: Looks,
        scale_log: ScaleLog,
        policies: Mapping[str, ScalePolicy],
        limits: FleetLimits,
        providers: Iterable[str],
        read_at: float,
        clock: Clock,
        tell: Tell,
    ) -> None:
        self._sensors, self._decide, self._fit = sensors, decide, fit
        self._actuator, self._book, self._pools, self._sweep, self._looks = actuator, book, pools, sweep, looks
        self._log, self._policies, self._limits = scale_log, policies, limits
        self._providers, self._read_at = tuple(providers), read_at
        self._clock, self._tell = clock, tell
        self._saved_at_s = self._forgot_at_s = clock.mono_s()
        self.observations: dict[str, Observation] = {}
        self.decisions: dict[str, Decision] = {}
        """The last of each pool, for views."""
        self.alerts: tuple[str, ...] = ()
        """Of machines and clouds, beside those of decisions."""
        self._held: dict[str, str] = {}
        """Pools that a fault kept from being decided or served in the last round, in words."""
        self._is_winding_down = False
        self.ended_at_s: float | None = None
        """When its last round ended, monotonic clock; None: none did."""
        self._wake, self._wound_down = asyncio.Event(), asyncio.Event()

    async def wind_down(self) -> None:
        """The fleet stops: let every machine go and order none, for as long as this process lives.

        In a dry run too: it is a person's word on the machines that are there, and no decision of ours. Left alone
        they would be paid for until their dead-man ends them, and the next start would count on them.

        Returns once the claims say so, or soon where the ledger is away; whoever asks ends the machines.
        """
        self._is_winding_down = True
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(WIND_DOWN_S):
                await self._wound_down.wait()

    async def run(self) -> None:
        """Until cancelled. What is under way then is dropped; the claims say what it was."""
        try:
            while True:
                await self.round()
                with suppress(TimeoutError):
                    async with asyncio.timeout(ROUND_S):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            await self._actuator.stop()

    async def round(self) -> None:
        """One turn. Raises nothing: what failed is logged, and done in the next."""
        await self._guarded("decide", self._end_all if self._is_winding_down else self._decide_and_act)
        # while it is dry nothing is ordered or ended, what was begun before neither
        await self._guarded("step", self._actuator.look if self._is_dry else self._actuator.step)
        await self._guarded("remember", self._remember)
        self.alerts = tuple(self._machine_alerts())
        self.ended_at_s = self._clock.mono_s()

    @property
    def _is_dry(self) -> bool:
        return self._pools.is_dry and not self._is_winding_down

    async def _guarded(self, what: str, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await work()
        except FleetError as error:
            log.warning("scale_round_unavailable", part=what, error=error.message)
        except Exception:
            log.exception("scale_round_failed", part=what)
        else:
            return True
        return False

    async def _decide_and_act(self) -> None:
        self._held.clear()
        seen = self.observations = {one.pool: one for one in self._sensors.observe()}
        decided = []
        for pool in [pool for pool in seen if pool in self._policies]:
            with self._alone(pool):
                seen[pool] = self._priced(seen[pool])
                history, override = self._pools.history(pool), self._pools.override(pool)
                decided.append(self._decide(seen[pool], self._policies[pool], history, override))
        limits = replace(self._limits, is_dry=self._pools.is_dry)
        left = not_scaled(self._book.standing(), self._policies.keys(), self._clock.wall_s())
        for decision in self._fit(decided, {**left, **seen}, self._policies, limits):
            with self._alone(decision.pool):
                await self._take_up(decision, seen[decision.pool], self._policies[decision.pool])
        await self._end(self._book.pools() - self._policies.keys())

    async def _take_up(self, decision: Decision, seen: Observation, policy: ScalePolicy) -> None:
        history = self._pools.history(decision.pool).after(seen, decision, policy)
        self._pools.set_history(decision.pool, history)
        await self._take(self._with_alerts(decision), seen, policy)

    async def _end_all(self) -> None:
        self._held.clear()
        await self._end(self._book.pools())
        self._wound_down.set()

    async def _end(self, pools: Iterable[str]) -> None:
        for pool in pools:
            with self._alone(pool):
                await self._take(self._end_of(pool), Observation(pool, self._clock.wall_s()), ScalePolicy(pool, ()))

    @contextmanager
    def _alone(self, pool: str) -> Iterator[None]:
        """What fails here for a fault of ours holds this pool for the round, and an operator is told.

        Raises:
            Retryable: the ledger is away, or another leads: that is so for all pools, and ends the round.
        """
        try:
            yield
        except Retryable:
            raise
        except Exception as error:
            log.exception("pool_held", pool=pool)
            self._held[pool] = f"pool {pool} is held by a fault, see pool_held in the log: {error!r}"

    def _priced(self, seen: Observation) -> Observation:
        """What the next machine costs depends on the rung that it would be ordered on now."""
        policy = self._policies.get(seen.pool)
        price = None if policy is None else self._actuator.next_price(policy, seen.regions_wanted)
        return seen if price is None else replace(seen, price_eur_h=price.eur_h, billing_s=price.billing_s)

    async def _take(self, decision: Decision, seen: Observation, policy: ScalePolicy) -> None:
        self.decisions[decision.pool] = decision
        self._tell(Decided(decision))
        await self._log.note(decision, seen)  # first: why is on record before anything is done about it
        await self._actuator.act(decision, policy, wanted=seen.regions_wanted)

    def _end_of(self, pool: str) -> Decision:
        """The file does not scale this pool any more, or the fleet stops: what it has drains and ends."""
        claims = self._book.standing(pool)
        live = tuple(claim.id for claim in claims if claim.state in LIVE)
        if self._is_winding_down:
            reason = Reason("stopping", "the fleet stops", 0)
        else:
            reason = Reason("not_scaled", f"the pools file has no [pools.{pool}.scale] any more", 0)
        return Decision(pool, self._clock.wall_s(), len(live), 0, victims=live, reasons=(reason,), is_dry=self._is_dry)

    def _with_alerts(self, decision: Decision) -> Decision:
        policy, everyones = self._policies[decision.pool], self._book.all()
        own = self._book.all(decision.pool)
        found = pool_alerts(policy, own, everyones, self._clock.wall_s(), read_at=self._read_at)
        return replace(decision, alerts=(*decision.alerts, *found)) if found else decision

    def _machine_alerts(self) -> list[str]:
        now = self._clock.wall_s()
        return [
            *self._held.values(),
            *claim_alerts(self._book.standing(), self._providers, now),
            *look_alerts(self._looks.errors, self._sweep.leaks, self._sweep.unlisted.values()),
        ]

    async def _remember(self) -> None:
        now_s = self._clock.mono_s()
        if now_s - self._saved_at_s >= SAVE_EVERY_S:
            self._saved_at_s = now_s
            await self._pools.save_histories()
        if now_s - self._forgot_at_s >= FORGET_EVERY_S:
            self._forgot_at_s = now_s
            await self._book.forget()
            await self._log.forget()

"""What operators ask of the autoscaler: what is there, why, what would be; and their two words to it.

Satisfies the API's `Scaling`. Reads claims, the log of decisions and what the loop saw last; writes
overrides and dry-run only, which the loop reads when it decides next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from orchestrator.autoscaler.book.claims import cost_eur_h
from orchestrator.autoscaler.book.pool_book import PoolBook
from orchestrator.autoscaler.book.wire import UnreadableRecord, loads
from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.limits import fit, not_scaled
from orchestrator.autoscaler.decide.replay import replay
from orchestrator.autoscaler.errors import NotSized
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.show import shown
from orchestrator.autoscaler.show.money import DAY_S, WEEK_S, midnight, spent_eur
from orchestrator.autoscaler.show.standing import REFUSED, by_word, standing
from orchestrator.autoscaler.values import ClaimState, Decision, NodeClaim, Observation, Override
from orchestrator.ledger.values import ScaleLogRow
from tasks.clock import Clock
from tasks.errors import InvalidCall, NotFound
from tasks.node import NodeState
from tasks.scale_wire import (
    OVERRIDE_MAX_S,
    MachineView,
    OverrideView,
    ScaleLogView,
    ScalePlanView,
    ScalePoolView,
    ScaleReplayView,
    ScaleView,
)

log = structlog.get_logger("mcpfleet.scale")
NO_LADDER = "no pool is sized: none has a [pools.NAME.scale]; docs/autoscaling.md says how to write one"
RECENT_S = 3600.0
"""Machines that are gone are listed for so long."""
LOOK_BACK_S = 3600.0
"""Without a loop in this process the last decision is looked for so far back."""
ROWS_MAX = 20_000
"""Of the log, read at once: a quiet pool's week has 2,016, one that changes for an hour of each day 7,000."""

Change = Callable[[ScalePolicy, Mapping[str, object]], ScalePolicy]
"""A policy with other fields. Raises InvalidCall where they are wrong."""


class Claims(Protocol):
    """The book of claims."""

    def all(self, pool: str | None = None) -> list[NodeClaim]: ...


class Books(Protocol):
    """The log of decisions."""

    async def scale_log(
        self, pool: str | None, since: float, limit: int, until: float | None = None
    ) -> list[ScaleLogRow]: ...


class Sight(Protocol):
    """The loop: what it saw and decided last, by pool, and what of machines and clouds needs a look."""

    @property
    def observations(self) -> Mapping[str, Observation]: ...
    @property
    def decisions(self) -> Mapping[str, Decision]: ...
    @property
    def alerts(self) -> Sequence[str]: ...
    async def wind_down(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LogOnly:
    """A `Sight` where no loop runs: what was last is read from the log."""

    observations: Mapping[str, Observation] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    alerts: Sequence[str] = ()

    async def wind_down(self) -> None:
        """There is nobody to stop."""


class ScaleViews:
    """The autoscaler, shown."""

    def __init__(
        self,
        *,
        policies: Mapping[str, ScalePolicy],
        limits: FleetLimits,
        claims: Claims,
        pools: PoolBook,
        books: Books,
        sight: Sight,
        change: Change,
        node_state: Callable[[str], NodeState | None],
        clock: Clock,
    ) -> None:
        self._policies, self._limits, self._claims = policies, limits, claims
        self._pools, self._books = pools, books
        self._sight, self._change, self._node_state, self._clock = sight, change, node_state, clock

    async def scale(self) -> ScaleView:
        """All pools that are sized, and what the fleet costs."""
        now = self._clock.wall_s()
        return ScaleView(
            cluster=self._limits.cluster,
            is_dry=self._pools.is_dry,
            budget_eur_h=self._limits.budget_eur_h,
            max_machines=self._limits.max_machines,
            cost_eur_h=cost_eur_h(self._claims.all()),
            pools=[await self._pool(policy) for policy in self._policies.values()],
            alerts=list(self._sight.alerts),
            note="" if self._policies else NO_LADDER,
            cost_today_eur=spent_eur(self._claims.all(), midnight(now), now),
            cost_week_eur=spent_eur(self._claims.all(), now - WEEK_S, now),
        )

    def machines(self) -> list[MachineView]:
        """Machines that were ordered, newest first; those that are gone for a while."""
        since = self._clock.wall_s() - RECENT_S
        kept = [c for c in self._claims.all() if c.state is not ClaimState.GONE or c.state_at >= since]
        newest_first = sorted(kept, key=lambda claim: claim.created_at, reverse=True)
        return [shown.machine_view(claim, self._standing(claim)) for claim in newest_first]

    async def log(self, pool: str | None, since: float | None, until: float | None, limit: int) -> list[ScaleLogView]:
        """Decisions of the past, oldest first, the newest `limit` of them.

        Raises:
            NotFound: no such pool.
        """
        rows = await self._books.scale_log(pool, since or 0.0, limit, until)
        if not rows and pool is not None:
            self._require(pool)  # of one that is sized no more the log is shown all the same
        # In a thread: of a large pool a row is as long as its machines are many.
        return await asyncio.to_thread(_log_views, rows)

    async def plan(self, pool: str | None, changes: Mapping[str, object]) -> list[ScalePlanView]:
        """What would be decided now, with some fields of the policy changed. Changes nothing.

        All pools are fitted together, as the loop does: one may take what another wants.

        Raises:
            NotFound: no such pool, or it was not looked at yet.
            InvalidCall: a field is unknown or wrong.
        """
        if not self._policies:
            raise InvalidCall(NO_LADDER)
        chosen = [self._require(pool)] if pool is not None else list(self._policies.values())
        policies = {**self._policies, **{one.pool: self._change(one, changes) for one in chosen}}
        seen = {name: found for name in policies if (found := await self._seen(name)) is not None}
        if pool is not None and pool not in seen:
            raise NotFound("look at pool", pool)
        decisions = [
            decide(one, policies[name], self._pools.history(name), self._pools.override(name))
            for name, one in seen.items()
        ]
        standing = [claim for claim in self._claims.all() if claim.state is not ClaimState.GONE]
        left = not_scaled(standing, policies.keys(), self._clock.wall_s())
        fitted = fit(decisions, {**left, **seen}, policies, self._limits_now())
        wanted = {one.pool for one in chosen}
        return [
            ScalePlanView(decision=shown.decision_view(one), seen=shown.seen_view(seen[one.pool]))
            for one in fitted
            if one.pool in wanted
        ]

    async def replay(self, pool: str, since: float, changes: Mapping[str, object]) -> ScaleReplayView:
        """What would have been decided since then, beside what was.

        Raises:
            NotFound: no such pool.
            InvalidCall: a field is unknown or wrong.
        """
        policy = self._change(self._require(pool), changes)
        rows = await self._books.scale_log(pool, since, ROWS_MAX)
        # In a thread: a week is thousands of decisions, and the loop renews leases meanwhile.
        return await asyncio.to_thread(_replay, rows, policy, replace(self._limits, is_dry=False))

    async def set_override(self, pool: str, target: int, until: float, by: str) -> OverrideView:
        """A person's word, until it expires; limits hold all the same.

        Raises:
            NotFound: no such pool.
            InvalidCall: its end has passed, or is so far away that it is none.
        """
        self._require(pool)
        now = self._clock.wall_s()
        if until <= now:
            raise InvalidCall(
                f"the override of pool {pool!r} would have ended {now - until:.0f} s ago; give a later end"
            )
        if until - now > OVERRIDE_MAX_S:
            raise InvalidCall(
                f"the override of pool {pool!r} would last {(until - now) / DAY_S:.3g} days; give an end within "
                f"{OVERRIDE_MAX_S / DAY_S:g}: what is to hold for longer belongs into the pools file"
            )
        override = Override(target, until, by)
        await self._pools.set_override(pool, override)
        log.info("scale_override", pool=pool, target=target, for_s=round(until - now), by=by)
        return OverrideView(target=target, until=until, by=by)

    async def clear_override(self, pool: str) -> None:
        """The policy decides again. Raises NotFound for an unknown pool."""
        self._require(pool)
        await self._pools.set_override(pool, None)
        log.info("scale_override_cleared", pool=pool)

    async def set_dry(self, is_dry: bool) -> None:
        """Decide and say, order and end nothing; or act again."""
        await self._pools.set_dry(is_dry)
        log.info("scale_dry_run", is_dry=is_dry)

    async def wind_down(self) -> None:
        """The fleet stops: every machine is let go, none is ordered, until this process ends."""
        log.info("scale_winds_down")
        await self._sight.wind_down()

    def _limits_now(self) -> FleetLimits:
        return replace(self._limits, is_dry=self._pools.is_dry)

    def _require(self, pool: str) -> ScalePolicy:
        policy = self._policies.get(pool)
        if policy is None:
            if not self._policies:
                raise InvalidCall(f"pool {pool[:80]!r} is not sized: {NO_LADDER}")
            raise NotSized(pool[:80], list(self._policies))
        return policy

    async def _pool(self, policy: ScalePolicy) -> ScalePoolView:
        claims, now = self._claims.all(policy.pool), self._clock.wall_s()
        seen, decision = self._sight.observations.get(policy.pool), self._sight.decisions.get(policy.pool)
        if decision is None:
            seen, decision = await self._logged(policy.pool)
        there = [claim for claim in claims if claim.state is not ClaimState.GONE]
        words = {claim.id: self._standing(claim) for claim in there}
        return ScalePoolView(
            pool=policy.pool,
            strategy=policy.strategy,
            min_machines=policy.min_machines,
            max_machines=policy.max_machines,
            priority=policy.priority,
            budget_eur_h=policy.budget_eur_h,
            target=None if decision is None else decision.target,
            machines=by_word(words.values()),
            refused=sum(1 for word in words.values() if word == REFUSED),
            others=0 if seen is None else seen.others,
            cost_eur_h=cost_eur_h(there),
            unpriced=sum(1 for claim in there if claim.price_eur_h is None and words[claim.id] != REFUSED),
            override=shown.override_view(self._pools.override(policy.pool)),
            decision=None if decision is None else shown.decision_view(decision),
            cost_today_eur=spent_eur(claims, midnight(now), now),
            cost_week_eur=spent_eur(claims, now - WEEK_S, now),
        )

    def _standing(self, claim: NodeClaim) -> str:
        return standing(claim, self._node_state(claim.node))

    async def _seen(self, pool: str) -> Observation | None:
        return self._sight.observations.get(pool) or (await self._logged(pool))[0]

    async def _logged(self, pool: str) -> tuple[Observation | None, Decision | None]:
        rows = await self._books.scale_log(pool, self._clock.wall_s() - LOOK_BACK_S, 1)
        found = _readable(rows)
        return found[-1] if found else (None, None)


def _readable(rows: Sequence[ScaleLogRow]) -> list[tuple[Observation, Decision]]:
    found = []
    for row in rows:
        try:
            found.append((loads(Observation, row.observation_json), loads(Decision, row.decision_json)))
        except UnreadableRecord as error:
            log.warning("scale_log_row_passed_by", pool=row.pool, at=row.at, detail=error.message)
    return found


def _log_views(rows: Sequence[ScaleLogRow]) -> list[ScaleLogView]:
    return [
        ScaleLogView(decision=shown.decision_view(decision), seen=shown.seen_view(seen))
        for seen, decision in _readable(rows)
    ]


def _replay(rows: Sequence[ScaleLogRow], policy: ScalePolicy, limits: FleetLimits) -> ScaleReplayView:
    read = _readable(rows)
    was = [decision for _, decision in read]
    would = replay([seen for seen, _ in read], policy, limits)
    steps, total, other = shown.replayed(was, would)
    return ScaleReplayView(
        pool=policy.pool,
        steps=steps,
        was=total,
        would=other,
        differs=sum(1 for step in steps if step.was != step.would),
        unreadable=len(rows) - len(read),
        rounds=shown.rounds(was),
    )

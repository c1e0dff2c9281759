"""What the autoscaler sees of each pool: made of what happened, what waits, who is joined and what was ordered.

Listens in constant time per happening and keeps a bounded past; everything that is true now is asked
for when it is looked at. What cannot be trusted is said in `Observation.missing`. Refuses to decide.

Arrivals are counted by the second in which a call became due: those released to a pool, and those that
wait and are its demand (`attribution.py`). So a call counts once, for the pool that runs it in the end;
one that was cancelled while it waited does not, and what a chain or a retry adds does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.autoscaler.act.ladder import was_refused
from orchestrator.autoscaler.observe.attribution import Demand, owner
from orchestrator.autoscaler.observe.lane_sensor import Capacity, LaneSensor
from orchestrator.autoscaler.observe.trust import Node, is_fresh, missing
from orchestrator.autoscaler.observe.windows import percentile
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import LIVE, LaneSeen, MachineSeen, NodeClaim, Observation
from orchestrator.happenings import AttemptEnded, AttemptReleased, AttemptRunning, Happening
from orchestrator.ledger.values import Outstanding
from tasks.clock import Clock
from tasks.invocation import Lane, State

BY_THE_SECOND_S = 1.0
OPEN_SLACK = 1000
"""Starts that are waited for beyond the open attempts, before those that were missed are dropped."""


class Fleet(Protocol):
    """Who is joined, what waits for room, and what a machine brings."""

    def nodes(self) -> Iterable[Node]: ...
    def attempts(self) -> Sequence[Outstanding]: ...
    def demand(self) -> Sequence[Demand]: ...
    def slots_of(self, pool: str) -> Mapping[Lane, int] | None:
        """Of one machine; None of a pool that no node was ever seen of."""
        ...


class Claims(Protocol):
    """What was ordered."""

    def standing(self, pool: str) -> Sequence[NodeClaim]:
        """Claims that are not gone."""
        ...

    def boots_s(self, pool: str) -> Sequence[float]:
        """Order to ready, of the last boots."""
        ...


@dataclass(frozen=True, slots=True)
class _Pool:
    tools: LaneSensor
    agents: LaneSensor


@dataclass(frozen=True, slots=True)
class _Now:
    """Everything that is true of all pools at one moment."""

    wall_s: float
    mono_s: float
    watched_s: float
    nodes: Mapping[str, list[Node]]
    held: Counter[str]
    queued: Counter[tuple[str, Lane]]
    running: Counter[tuple[str, Lane]]
    demand: Mapping[str, list[Demand]]
    claims: Mapping[str, list[NodeClaim]]


class Sensors:
    """One leader's.

    Args:
        policies: of scaled pools; others are not looked at.
        fleet: who is joined, and what waits.
        claims: what was ordered.
        leads: nobody else can lead now.
        broker_down: why nothing can be sent; None where it can.
        renew_every_s: how often nodes report.
        clock: of this process.
        has_notice: the provider takes this claim's machine away.
    """

    def __init__(
        self,
        *,
        policies: Mapping[str, ScalePolicy],
        fleet: Fleet,
        claims: Claims,
        leads: Callable[[], bool],
        broker_down: Callable[[], str | None],
        renew_every_s: float,
        clock: Clock,
        has_notice: Callable[[NodeClaim], bool] = lambda _claim: False,
    ) -> None:
        self._policies, self._fleet, self._claims = policies, fleet, claims
        self._leads, self._broker_down, self._renew_every_s = leads, broker_down, renew_every_s
        self._clock, self._has_notice = clock, has_notice
        self.begin()

    def begin(self) -> None:
        """This process leads from now on: what it knows of the past is nothing."""
        self._pools = {pool: _Pool(LaneSensor(), LaneSensor()) for pool in self._policies}
        self._starting: dict[str, tuple[LaneSensor, float]] = {}
        """Released and not started → whose, and when it was due."""
        self._busy_at: dict[str, float] = {}
        self._began_s = self._clock.mono_s()

    def hear(self, happening: Happening) -> None:
        """An attempt moved."""
        if type(happening) is AttemptReleased:
            self._released(happening)
        elif type(happening) is AttemptRunning:
            found = self._starting.pop(happening.invocation_id, None)
            if found is not None:
                found[0].started(happening.at, found[1])
        elif type(happening) is AttemptEnded:
            self._ended(happening)

    def observe(self) -> list[Observation]:
        """Every scaled pool, now."""
        now = self._now()
        self._forget(now)
        return [self._observation(pool, policy, now) for pool, policy in self._policies.items()]

    def _released(self, released: AttemptReleased) -> None:
        pool = self._pools.get(released.pool)
        if pool is None:
            return
        sensor = pool.tools if released.lane is Lane.TOOLS else pool.agents
        due = released.at - released.waited_s
        sensor.arrived(due)
        self._starting[released.invocation_id] = (sensor, due)

    def _ended(self, ended: AttemptEnded) -> None:
        pool = self._pools.get(ended.pool)
        if pool is None:
            return
        sensor = pool.tools if ended.lane is Lane.TOOLS else pool.agents
        found = self._starting.pop(ended.invocation_id, None)
        if found is not None:
            if ended.started_at is not None:
                found[0].started(ended.started_at, found[1])
            elif ended.to is State.WAITING:
                found[0].withdrawn(found[1])
        if ended.node is not None:
            self._busy_at[ended.node] = self._clock.mono_s()
        sensor.ended(ended)

    def _now(self) -> _Now:
        nodes: defaultdict[str, list[Node]] = defaultdict(list)
        for node in self._fleet.nodes():
            nodes[node.offer.pool].append(node)
        held, queued, running = Counter[str](), Counter[tuple[str, Lane]](), Counter[tuple[str, Lane]]()
        for attempt in self._fleet.attempts():
            if attempt.node is not None:
                held[attempt.node] += 1
            counted = queued if attempt.state is State.RELEASED else running
            counted[attempt.pool, attempt.lane] += 1
        claims = {pool: list(self._claims.standing(pool)) for pool in self._policies}
        mono_s = self._clock.mono_s()
        return _Now(
            wall_s=self._clock.wall_s(),
            mono_s=mono_s,
            watched_s=mono_s - self._began_s,
            nodes=nodes,
            held=held,
            queued=queued,
            running=running,
            demand=self._demand(claims),
            claims=claims,
        )

    def _demand(self, claims: Mapping[str, list[NodeClaim]]) -> Mapping[str, list[Demand]]:
        full = {
            pool
            for pool, policy in self._policies.items()
            if sum(claim.state in LIVE for claim in claims[pool]) >= policy.max_machines
        }
        by_pool: defaultdict[str, list[Demand]] = defaultdict(list)
        for demand in self._fleet.demand():
            pool = owner(demand, self._policies, full)
            if pool is not None:
                by_pool[pool].append(demand)
        return by_pool

    def _observation(self, pool: str, policy: ScalePolicy, now: _Now) -> Observation:
        nodes, claims, demand = now.nodes.get(pool, []), now.claims[pool], now.demand.get(pool, [])
        ready = [node for node in nodes if node.is_open(now.mono_s) and "" not in node.unhealthy()]
        reporting = [node for node in ready if is_fresh(node, now.mono_s, self._renew_every_s)]
        claimed, joined = {claim.node for claim in claims}, {node.name for node in nodes}
        slots = self._slots_of_one(policy, [node for node in ready if node.name in claimed])
        return Observation(
            pool=pool,
            at=now.wall_s,
            lanes={lane: self._lane(pool, lane, ready, slots[lane], now) for lane in Lane},
            machines=tuple(self._machine(claim, now, is_joined=claim.node in joined) for claim in claims),
            others=sum(node.name not in claimed for node in ready),
            cpu=_mean([node.load.cpu for node in reporting]),
            memory=_mean([node.load.memory for node in reporting]),
            boot_p90_s=percentile(self._claims.boots_s(pool), 0.9),
            price_eur_h=policy.ladder[0].price_eur_h,
            missing=missing(
                nodes,
                now_s=now.mono_s,
                watched_s=now.watched_s,
                renew_every_s=self._renew_every_s,
                leads=self._leads(),
                broker_down=self._broker_down(),
            ),
            has_unmet=any(not one.up for one in demand),
            is_unknown=self._is_unknown(pool),
            regions_wanted=_regions(demand),
        )

    def _lane(self, pool: str, lane: Lane, ready: Sequence[Node], slots_of_one: int, now: _Now) -> LaneSeen:
        sensors = self._pools[pool]
        capacity = Capacity(
            now.queued[pool, lane],
            now.running[pool, lane],
            sum(node.offer.slots.get(lane, 0) for node in ready),
            slots_of_one,
        )
        waiting = [demand for demand in now.demand.get(pool, ()) if demand.shape.lane is lane]
        sensor = sensors.tools if lane is Lane.TOOLS else sensors.agents
        return sensor.seen(waiting, capacity, now=now.wall_s, watched_s=now.watched_s)

    def _is_unknown(self, pool: str) -> bool:
        return self._fleet.slots_of(pool) is None

    def _slots_of_one(self, policy: ScalePolicy, claimed: Sequence[Node]) -> Mapping[Lane, int]:
        """As the newest machine of the pool has them, else the last node that was seen, else as the file says."""
        newest = max(claimed, key=lambda node: node.joined_at, default=None)
        slots = newest.offer.slots if newest is not None else self._fleet.slots_of(policy.pool)
        if slots is None:
            return {Lane.TOOLS: policy.slots_tools, Lane.AGENTS: policy.slots_agents}
        return {lane: slots.get(lane, 0) for lane in Lane}

    def _machine(self, claim: NodeClaim, now: _Now, *, is_joined: bool) -> MachineSeen:
        held = now.held[claim.node] if is_joined else 0
        if held:
            self._busy_at[claim.node] = now.mono_s
        idle_s = 0.0
        if is_joined and not held:
            joined_s = now.mono_s - max(0.0, now.wall_s - (claim.ready_at or claim.state_at))
            idle_s = max(0.0, now.mono_s - max(joined_s, self._began_s, self._busy_at.get(claim.node, 0.0)))
        age_s = max(0.0, now.wall_s - claim.created_at)
        return MachineSeen(
            claim=claim.id,
            node=claim.node,
            state=claim.state,
            is_spot=claim.rung.is_spot,
            has_notice=self._has_notice(claim),
            held=held,
            idle_s=idle_s,
            age_s=age_s,
            price_eur_h=claim.price_eur_h,
            paid_left_s=claim.billing_s - age_s % claim.billing_s if claim.billing_s > BY_THE_SECOND_S else None,
            failures=claim.failures,
            told_to_leave=claim.told_to_leave,
            refused=claim.error if was_refused(claim) else "",
        )

    def _forget(self, now: _Now) -> None:
        joined = {node.name for nodes in now.nodes.values() for node in nodes}
        for name in [name for name in self._busy_at if name not in joined]:
            del self._busy_at[name]
        attempts = self._fleet.attempts()
        if len(self._starting) > len(attempts) + OPEN_SLACK:
            known = {attempt.invocation_id for attempt in attempts}
            self._starting = {key: found for key, found in self._starting.items() if key in known}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _regions(demand: Iterable[Demand]) -> tuple[str, ...]:
    """Patterns of regions that waiting calls are bound to, those of most calls first."""
    calls: Counter[str] = Counter()
    for one in demand:
        for pattern in one.shape.regions:
            calls[pattern] += one.calls
    return tuple(sorted(calls, key=lambda pattern: (-calls[pattern], pattern)))

"""An autoscaler's memory without an autoscaler: real views over claims and decisions that tests wrote down.

Decisions are made by the real `decide`, so that what tests print is what operators see.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.autoscaler.book.pool_book import PoolBook
from orchestrator.autoscaler.book.wire import dumps
from orchestrator.autoscaler.cloud.provider import ProviderConfig
from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.show.views import LogOnly, ScaleViews
from orchestrator.autoscaler.values import ClaimState, LaneSeen, MachineSeen, NodeClaim, Observation, Rung
from orchestrator.ledger.values import ScaleLogRow, ScalePoolRow
from orchestrator.pools_change import change_policy
from tasks.clock import Clock, SystemClock
from tasks.invocation import Lane
from tasks.node import NodeState

POOL = "builders"
RUNGS = (Rung("hetzner", "cx33", "fsn1", price_eur_h=0.0113), Rung("hetzner", "cx33", "nbg1", price_eur_h=0.0113))
POLICY = ScalePolicy(POOL, RUNGS, min_machines=1, max_machines=6)
MINUTES = 90
STEP_S = 60.0
BURST = range(30, 50)


@dataclass
class MemoryScaleBooks:
    """The ledger's tables."""

    rows: list[ScaleLogRow] = field(default_factory=list)
    pools: dict[str, ScalePoolRow] = field(default_factory=dict)

    async def scale_log(
        self, pool: str | None, since: float, limit: int, until: float | None = None
    ) -> list[ScaleLogRow]:
        """The newest, oldest first."""
        known = [row for row in self.rows if until is None or row.at <= until]
        return [row for row in known if pool in {None, row.pool} and row.at >= since][-limit:]

    async def scale_pools(self) -> list[ScalePoolRow]:
        """All."""
        return list(self.pools.values())

    async def save_scale_pool(self, row: ScalePoolRow) -> None:
        """Keep it."""
        self.pools[row.pool] = row


@dataclass
class MemoryClaims:
    """The book of claims."""

    claims: list[NodeClaim] = field(default_factory=list)

    def all(self, pool: str | None = None) -> list[NodeClaim]:
        """Of a pool, or all."""
        return [claim for claim in self.claims if pool in {None, claim.pool}]


def scale_views(
    clock: Clock | None = None,
    *,
    policies: dict[str, ScalePolicy] | None = None,
    is_quiet: bool = False,
    draining: int = 0,
) -> ScaleViews:
    """An hour and a half of a pool that had a burst; with `is_quiet`, a fleet that nothing sizes.

    `draining`: machines besides that are let go.
    """
    clock, books = clock or SystemClock(), MemoryScaleBooks()
    policies = {} if is_quiet else policies or {POOL: POLICY}
    claims = MemoryClaims()
    if not is_quiet:
        now = clock.wall_s()
        books.rows.extend(_history(policies[POOL], now))
        claims.claims.extend(claims_at(now))
        claims.claims.extend(
            replace(claims.claims[0], id=f"draining-{number}", state=ClaimState.DRAINING) for number in range(draining)
        )
    providers = {"hetzner": ProviderConfig("hetzner", "hetzner", {}, state_dir=Path("cloud"))}
    return ScaleViews(
        policies=policies,
        limits=FleetLimits(cluster="prod", budget_eur_h=0.5),
        claims=claims,
        pools=PoolBook(books=books, clock=clock, is_dry=False),
        books=books,
        sight=LogOnly(),
        change=lambda policy, changes: change_policy(policy, changes, providers),
        node_state=lambda _node: NodeState.ACTIVE,
        clock=clock,
    )


def _history(policy: ScalePolicy, now: float) -> list[ScaleLogRow]:
    """A burst from the 30th to the 50th minute; each decision is taken to have been carried out at once."""
    rows, history, machines = [], History(), 1
    for minute in range(MINUTES):
        at = now - (MINUTES - minute) * STEP_S
        seen = _observation(policy, at, machines, rate=12.0 if minute in BURST else 0.5)
        decision = decide(seen, policy, history)
        history = history.after(seen, decision, policy)
        machines = decision.target
        rows.append(ScaleLogRow(policy.pool, at, dumps(seen), dumps(decision)))
    return rows


def _observation(policy: ScalePolicy, at: float, machines: int, *, rate: float) -> Observation:
    slots = machines * policy.slots_tools
    running = min(slots, round(rate * 1.5))
    short = max(0.0, rate - slots / 1.5)
    lane = LaneSeen(
        waiting=round(short * STEP_S),
        running=running,
        slots=slots,
        slots_per_machine=policy.slots_tools,
        oldest_wait_s=short * 10,
        wait_p50_s=short * 4,
        wait_p95_s=0.2 + short * 8,
        arrivals_per_s=rate,
        service_mean_s=1.5,
        service_p95_s=4.0,
    )
    held = running // machines if machines else 0
    return Observation(
        policy.pool,
        at,
        {Lane.TOOLS: lane, Lane.AGENTS: LaneSeen(slots=2 * machines, slots_per_machine=2)},
        tuple(
            MachineSeen(
                f"m{n}", f"{policy.pool}-m{n}", ClaimState.READY, held=held, idle_s=0.0 if held else 99.0, age_s=4000.0,
                price_eur_h=0.0113,
            )
            for n in range(machines)
        ),
        cpu=0.4,
        memory=0.3,
        boot_p90_s=62.0,
        price_eur_h=0.0113,
    )  # fmt: skip


def claims_at(now: float) -> list[NodeClaim]:
    """One that is ready, one that boots, one that is gone."""
    first = NodeClaim(
        "abcdefghij", POOL, f"{POOL}-abcdefghij", RUNGS[0], ClaimState.READY, now - 5400, now - 5340, machine_id="4711",
        address="10.0.0.7", ready_at=now - 5340, reason="min_machines is 1", price_eur_h=0.0113, billing_s=3600.0,
        expires_at=now + 7200,
    )  # fmt: skip
    coming = replace(
        first, id="bcdefghijk", node=f"{POOL}-bcdefghijk", state=ClaimState.BOOTING, created_at=now - 40,
        state_at=now - 40, address=None, ready_at=None, reason="2 machines keep 95 of 100 calls under 5 s",
    )  # fmt: skip
    failed = replace(
        coming, id="cdefghijkl", node=f"{POOL}-cdefghijkl", state=ClaimState.GONE, created_at=now - 1900,
        state_at=now - 900, terminated_at=now - 900, rung=replace(RUNGS[1], is_spot=True),
        error="it has not joined within 900 s",
    )  # fmt: skip
    return [first, coming, failed]

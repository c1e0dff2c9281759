"""What every decision keeps, whatever was seen: limits, busy machines, and calm."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.autoscaler.decide import needs
from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.decide.limits import fit, spending
from orchestrator.autoscaler.decide.season import Season
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy, ScaleStrategy
from orchestrator.autoscaler.values import (
    COMING,
    LIVE,
    ClaimState,
    Decision,
    LaneSeen,
    MachineSeen,
    Observation,
    Override,
    Rung,
)
from tasks.invocation import Lane

POLICY = ScalePolicy("p", (Rung("local"),))
AT = 1_000_000.0


def a_lane(draw: Random) -> LaneSeen:
    """Any figures, sensible or not."""
    return LaneSeen(
        waiting=draw.choice([0, 0, 3, draw.randint(0, 500)]),
        queued=draw.randint(0, 20),
        running=draw.randint(0, 80),
        slots=draw.randint(0, 80),
        slots_per_machine=draw.randint(0, 8),
        oldest_wait_s=draw.uniform(0.0, 600.0),
        wait_p95_s=draw.choice([None, 0.0, draw.uniform(0.0, 600.0)]),
        arrivals_per_s=draw.choice([0.0, draw.uniform(0.0, 50.0)]),
        arrivals_trend=draw.uniform(-1.0, 1.0),
        arrivals_trend_sigma=draw.uniform(0.0, 0.5),
        service_mean_s=draw.choice([None, draw.uniform(0.01, 5.0), draw.uniform(1.0, 4000.0)]),
        service_scv=draw.uniform(0.0, 20.0),
        error_rate=draw.choice([0.0, draw.random()]),
    )


def a_machine(draw: Random, index: int) -> MachineSeen:
    """One in any state; what has not joined holds nothing."""
    state = draw.choice([ClaimState.READY, *(state for state in ClaimState if state is not ClaimState.GONE)])
    return MachineSeen(
        f"c{index}",
        f"p-c{index}",
        state,
        has_notice=draw.random() < 0.15,
        held=0 if state in COMING else draw.choice([0, 0, 1, 3]),
        age_s=draw.choice([30.0, draw.uniform(0.0, 10_000.0)]),
        price_eur_h=draw.choice([None, draw.uniform(0.0, 0.2)]),
        paid_left_s=draw.choice([None, draw.uniform(0.0, 700.0), draw.uniform(0.0, 3600.0)]),
        told_to_leave=draw.random() < 0.3,
    )


def an_observation(draw: Random) -> Observation:
    """Anything that sensors might give."""
    return Observation(
        "p",
        AT,
        {lane: a_lane(draw) for lane in Lane if draw.random() < 0.8},
        tuple(a_machine(draw, index) for index in range(draw.randint(0, 14))),
        others=draw.choice([0, 0, 2]),
        cpu=draw.choice([None, draw.random()]),
        memory=draw.choice([None, draw.random()]),
        boot_p90_s=draw.choice([None, draw.uniform(1.0, 600.0)]),
        price_eur_h=draw.choice([None, draw.uniform(0.001, 0.2)]),
        billing_s=draw.choice([1.0, 60.0, 3600.0]),
        quota_left=draw.choice([None, draw.randint(0, 20)]),
        missing=draw.choice([(), (), ("node b-1 has not reported for 21 s",)]),
        has_unmet=draw.random() < 0.2,
    )


def a_policy(draw: Random) -> ScalePolicy:
    """Any strategy and limits."""
    least = draw.randint(0, 5)
    return replace(
        POLICY,
        strategy=draw.choice(list(ScaleStrategy)),
        min_machines=least,
        max_machines=least + draw.randint(0, 8),
        budget_eur_h=draw.choice([None, draw.uniform(0.0, 2.0), draw.uniform(0.0, 1.0)]),
        priority=draw.randint(0, 2),
    )


def a_history(draw: Random) -> History:
    """Any past, known for long or not at all."""
    return History(
        needs=tuple((AT - draw.uniform(1.0, 300.0), draw.randint(0, 12)) for _ in range(draw.randint(0, 4))),
        known_since=draw.choice([None, AT - draw.uniform(15.0, 900.0), AT - 9000.0]),
        looked_at=draw.choice([None, AT - 15.0, AT - 15.0]),
        held_since={name: AT - draw.uniform(0.0, 900.0) for name in ("cpu", "late") if draw.random() < 0.5},
        changed_at=draw.choice([None, AT - draw.uniform(0.0, 900.0)]),
        idle_since=draw.choice([None, AT - draw.uniform(0.0, 2000.0)]),
    )


def an_override(draw: Random) -> Override | None:
    """None, one that holds, or one that is over."""
    return draw.choice([None, Override(draw.randint(0, 30), AT + draw.choice([-10.0, 900.0]), "ann")])


seeds = st.integers(0, 2**32).map(Random)
"""Drawn by chance from a number: a hundred times faster than value by value, and the number is in the report."""
cases = seeds.map(lambda draw: (an_observation(draw), a_policy(draw), a_history(draw), an_override(draw)))
Case = tuple[Observation, ScalePolicy, History, Override | None]


def kept(seen: Observation, decision: Decision) -> list[MachineSeen]:
    """Machines that count and were not let go."""
    going = {*decision.victims, *decision.cordon}
    return [one for one in seen.machines if one.state in LIVE and one.claim not in going]


@settings(max_examples=100, deadline=None)
@given(cases)
def test_no_decision_passes_a_limit(case: Case) -> None:
    """Never over max, never more ordered than quota and money allow, never under min but for a ceiling that says so."""
    seen, policy, history, override = case
    decision = decide(seen, policy, history, override)
    takeable = [one for one in seen.machines if one.state is ClaimState.DRAINING and not one.told_to_leave]
    ordered = max(0, decision.target - len(kept(seen, decision)) - sum(not one.has_notice for one in takeable))
    if not seen.missing:
        assert decision.target <= policy.max_machines
    if ordered:
        assert decision.target <= policy.max_machines
        assert seen.quota_left is None or ordered <= seen.quota_left
        if policy.budget_eur_h is not None:
            assert seen.price_eur_h is not None
            assert spending(seen) + ordered * seen.price_eur_h <= policy.budget_eur_h + 1e-6
    if decision.target < policy.min_machines:
        assert any("min_machines" in alert for alert in decision.alerts)


@settings(max_examples=100, deadline=None)
@given(cases)
def test_nothing_busy_is_ended(case: Case) -> None:
    """A victim holds no call, unless its provider takes it away; a busy one is only cordoned; and none is both."""
    seen, policy, history, override = case
    decision = decide(seen, policy, history, override)
    by_claim = {one.claim: one for one in seen.machines}
    assert all(not by_claim[claim].held or by_claim[claim].has_notice for claim in decision.victims)
    assert all(by_claim[claim].state in LIVE for claim in (*decision.victims, *decision.cordon))
    assert all(by_claim[claim].held for claim in decision.cordon)
    assert len({*decision.victims, *decision.cordon}) == len(decision.victims) + len(decision.cordon)


@settings(max_examples=100, deadline=None)
@given(cases)
def test_missing_data_never_shrink_a_pool(case: Case) -> None:
    """Who cannot see ends nothing that still serves: only failed boots and what the provider takes go."""
    seen, policy, history, override = case
    blind = replace(seen, missing=("the ledger did not answer",))
    decision = decide(blind, policy, history, override)
    lost = {one.claim for one in seen.machines if one.has_notice or one.age_s > policy.boot_limit_s}
    assert set(decision.victims) <= lost
    assert not decision.cordon
    assert decision.target >= len(kept(blind, decision))


@settings(max_examples=50, deadline=None)
@given(cases)
def test_the_same_is_decided_again(case: Case) -> None:
    """No clock and no chance: what was decided can be explained later."""
    seen, policy, history, override = case
    decision = decide(seen, policy, history, override)
    assert decision == decide(seen, policy, history, override)
    assert history.after(seen, decision, policy) == history.after(seen, decision, policy)


@settings(max_examples=100, deadline=None)
@given(seeds.map(an_observation), st.integers(0, 300), st.floats(0.0, 20.0))
def test_more_load_never_needs_fewer_machines(seen: Observation, waiting: int, rate: float) -> None:
    """More calls waiting or arriving, and all else the same: at least as many machines."""
    seen = replace(seen, lanes={name: replace(lane, arrivals_trend=0.0) for name, lane in seen.lanes.items()})
    more = {
        name: replace(lane, waiting=lane.waiting + waiting, arrivals_per_s=lane.arrivals_per_s + rate)
        for name, lane in seen.lanes.items()
    }
    before, after = (needs.of_pool(one, POLICY, Season()) for one in (seen, replace(seen, lanes=more)))
    assert after.grow >= before.grow
    assert after.keep >= before.keep
    assert before.keep >= before.grow


@settings(max_examples=100, deadline=None)
@given(
    seeds.map(
        lambda draw: [(an_observation(draw), a_policy(draw), a_history(draw)) for _ in range(draw.randint(1, 4))]
    ),
    st.none() | st.floats(0.0, 3.0),
    st.none() | st.integers(0, 30),
)
def test_pools_together_stay_within_the_fleet(
    pools: list[tuple[Observation, ScalePolicy, History]], budget: float | None, most: int | None
) -> None:
    """Whatever all pools want, nothing is ordered that the fleet's money or machines do not reach for."""
    named = [
        (replace(seen, pool=f"p{index}"), replace(policy, pool=f"p{index}"), history)
        for index, (seen, policy, history) in enumerate(pools)
    ]
    seen_by = {seen.pool: seen for seen, _, _ in named}
    policy_by = {policy.pool: policy for _, policy, _ in named}
    decisions = [decide(*one) for one in named]
    limits = FleetLimits(budget_eur_h=budget, max_machines=most)
    fitted = fit(decisions, seen_by, policy_by, limits)
    assert [one.pool for one in fitted] == [one.pool for one in decisions]
    cost = sum(spending(seen) for seen in seen_by.values())
    machines = sum(len(seen.machines) for seen in seen_by.values())
    ordered = 0
    for before, after in zip(decisions, fitted, strict=True):
        seen = seen_by[after.pool]
        takeable = [
            one
            for one in seen.machines
            if one.state is ClaimState.DRAINING and not one.told_to_leave and not one.has_notice
        ]
        new = max(0, after.target - len(kept(seen, after)) - len(takeable))
        ordered += new
        cost += new * (seen.price_eur_h or 0.0)
        assert after.target <= before.target or seen.missing
        assert all(not one.held or one.has_notice for one in seen.machines if one.claim in after.victims)
    assert not ordered or budget is None or cost <= budget + 1e-6
    assert not ordered or most is None or machines + ordered <= most


def steady(at: float, machines: int, rate: float, *, billing_s: float = 1.0) -> Observation:
    """A pool of so many ready machines of 4 slots under an even load of calls of 1.5 s."""
    lane = LaneSeen(
        running=round(rate * 1.5),
        slots=4 * machines,
        slots_per_machine=4,
        arrivals_per_s=rate,
        service_mean_s=1.5,
        wait_p95_s=0.0,
    )
    ready = tuple(MachineSeen(f"c{index}", f"p-c{index}", ClaimState.READY) for index in range(machines))
    return Observation("p", at, {Lane.TOOLS: lane}, ready, boot_p90_s=75.0, billing_s=billing_s)


def test_money_that_draining_machines_cost_is_spent() -> None:
    """A machine that drains is paid for: what it costs is not given out twice."""
    seen = replace(steady(AT, 2, 20.0), price_eur_h=0.1)
    told = MachineSeen("c9", "p-c9", ClaimState.DRAINING, held=1, told_to_leave=True)
    policy = replace(POLICY, budget_eur_h=0.5)
    assert decide(seen, policy, History()).target == 5
    assert decide(replace(seen, machines=(*seen.machines, told)), policy, History()).target == 4


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(0.5, 20.0), st.integers(1, 10))
def test_steady_load_ends_in_one_size(draw: Random, rate: float, machines: int) -> None:
    """An hour of load that wavers by a tenth: after the first quarter at most two changes, and none back and forth."""
    history, sizes = History(), []
    for tick in range(240):
        seen = steady(AT + 15.0 * tick, machines, rate * draw.uniform(0.9, 1.1))
        decision = decide(seen, POLICY, history)
        history = history.after(seen, decision, POLICY)
        machines = decision.target
        sizes.append(machines)
    late = sizes[60:]
    changes = [(a, b) for a, b in pairwise(late) if a != b]
    assert len(changes) <= 2, changes

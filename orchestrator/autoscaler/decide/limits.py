"""What no strategy may pass: min, max, quota and money, of one pool and of all pools together.

Owns the budgets. Money counts every machine that is not gone, draining ones too: it is paid for. A
ceiling beats `min_machines`, and says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from orchestrator.autoscaler.decide import victims
from orchestrator.autoscaler.decide.victims import Stock
from orchestrator.autoscaler.decide.wish import count
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.values import Decision, MachineSeen, NodeClaim, Observation, Reason

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Ceiling:
    """At most so many machines, ready and on the way. `text` ends a sentence: "at most 3: …"."""

    rule: str
    machines: int
    text: str


@dataclass(frozen=True, slots=True)
class Bounded:
    """A wish after the limits. `must`: a ceiling is under what there is."""

    machines: int
    reasons: tuple[Reason, ...] = ()
    alerts: tuple[str, ...] = ()
    must: bool = False


def ceilings(seen: Observation, policy: ScalePolicy, held: Stock) -> list[Ceiling]:
    """Every limit of this pool, as a number of machines."""
    had = len(held.kept) + len(held.takeable)
    found = [Ceiling("max", policy.max_machines, "max_machines")]
    if seen.quota_left is not None:
        found.append(Ceiling("quota", had + seen.quota_left, f"its provider allows {seen.quota_left} more"))
    if policy.budget_eur_h is not None:
        most = affordable(seen, held, policy.budget_eur_h)
        found.append(Ceiling("budget", most, _money(seen, policy.budget_eur_h)))
    return found


def bound(wished: int, limits: Sequence[Ceiling], least: int, kept: int) -> Bounded:
    """A wish of a pool that has `kept`, raised to the least and cut to the ceilings, which win."""
    low = min(limits, key=lambda limit: limit.machines)
    machines, reasons, alerts = wished, [], []
    if machines < least:
        machines = least
        reasons.append(Reason("min", f"at least {least}: min_machines", least))
    if machines > low.machines:
        machines = low.machines
        reasons.append(Reason(low.rule, f"at most {low.machines}: {low.text}", low.machines))
        if low.rule != "max":
            alerts.append(f"{count(wished)} wanted, {low.machines} allowed: {low.text}")
        if low.machines < least:
            alerts.append(f"min_machines of {least} cannot be kept: {low.text}")
    return Bounded(machines, tuple(reasons), tuple(alerts), must=low.machines < kept)


def affordable(seen: Observation, held: Stock, budget_eur_h: float) -> int:
    """Machines that the money reaches for: those that are there, cheapest first, then new ones."""
    there = [*sorted(_prices(seen, held.kept)), *sorted(_prices(seen, held.takeable))]
    spent, fits = 0.0, 0
    for price in there:
        spent += price
        if spent > budget_eur_h + ROUNDING:
            return fits
        fits += 1
    return fits + _more(budget_eur_h - spending(seen), seen.price_eur_h)


def spending(seen: Observation) -> float:
    """€ per hour of every machine that is not gone."""
    return sum(_prices(seen, seen.machines))


def _prices(seen: Observation, machines: Iterable[MachineSeen]) -> list[float]:
    return [_price(seen, machine) for machine in machines]


def _price(seen: Observation, machine: MachineSeen) -> float:
    price = seen.price_eur_h if machine.price_eur_h is None else machine.price_eur_h
    return 0.0 if price is None else price


def _more(room_eur_h: float, price_eur_h: float | None) -> int:
    """New machines for so much money. One whose price nobody knows is not bought under a budget."""
    if price_eur_h is None or room_eur_h < 0.0:
        return 0
    return int((room_eur_h + ROUNDING) / price_eur_h) if price_eur_h > 0.0 else 1_000_000


def _money(seen: Observation, budget_eur_h: float) -> str:
    if seen.price_eur_h is None:
        why = "the price of the next machine is not known; give price_eur_h on its rung"
        return f"budget_eur_h is {budget_eur_h:g} and {why}"
    return f"budget_eur_h is {budget_eur_h:g}, {spending(seen):.3g} is spent and one more costs {seen.price_eur_h:.3g}"


# ---------------------------------------------------------------- all pools


def fit(
    decisions: Sequence[Decision],
    observations: Mapping[str, Observation],
    policies: Mapping[str, ScalePolicy],
    limits: FleetLimits,
) -> tuple[Decision, ...]:
    """Decisions of all pools, cut to the fleet's money and machines by priority. In the order given.

    First every pool gets its `min_machines`, then what it wants, those of higher priority first, by name
    among equals. Who gets less than it has must shrink; who gets more waits until the money is free.

    Args:
        decisions: at most one per pool.
        observations: by pool; of every pool that has machines, also where nothing was decided.
        policies: by pool.
        limits: `is_dry` marks every decision.
    """
    marked = [replace(decision, is_dry=decision.is_dry or limits.is_dry) for decision in decisions]
    if limits.budget_eur_h is None and limits.max_machines is None:
        return tuple(marked)
    pools = sorted(
        (_Pool(decision, observations[decision.pool], policies[decision.pool]) for decision in marked),
        key=lambda pool: (-pool.policy.priority, pool.seen.pool),
    )
    undecided = [seen for name, seen in observations.items() if all(name != each.seen.pool for each in pools)]
    _share(pools, _purse(limits, undecided))
    _wait_for_room(pools, _purse(limits, observations.values()))
    by_pool = {pool.seen.pool: pool.fitted(limits) for pool in pools}
    return tuple(by_pool[decision.pool] for decision in marked)


def not_scaled(standing: Iterable[NodeClaim], scaled: Collection[str], at: float) -> dict[str, Observation]:
    """For `fit`: pools that the file does not scale any more, and whose machines drain and cost all the same."""
    left: dict[str, list[MachineSeen]] = {}
    for claim in standing:
        if claim.pool not in scaled:
            machine = MachineSeen(claim.id, claim.node, claim.state, price_eur_h=claim.price_eur_h)
            left.setdefault(claim.pool, []).append(machine)
    return {pool: Observation(pool, at, machines=tuple(machines)) for pool, machines in left.items()}


@dataclass(slots=True)
class _Purse:
    """What is left to give."""

    eur_h: float
    machines: float

    def give(self, price_eur_h: float | None) -> bool:
        if self.machines < 1 or (self.eur_h < inf and price_eur_h is None):
            return False
        price = price_eur_h or 0.0
        if price > self.eur_h + ROUNDING:
            return False
        self.machines -= 1
        self.eur_h -= price
        return True


@dataclass(slots=True)
class _Pool:
    decision: Decision
    seen: Observation
    policy: ScalePolicy
    granted: int = 0
    held: Stock = field(init=False)
    there: list[float] = field(init=False)
    """Prices of the machines that need not be ordered."""

    def __post_init__(self) -> None:
        self.held = victims.stock(self.seen, self.policy)
        self.there = [*sorted(_prices(self.seen, self.held.kept)), *sorted(_prices(self.seen, self.held.takeable))]

    def cost(self, index: int) -> float | None:
        """Of the pool's machine of this number, those that are there first."""
        return self.there[index] if index < len(self.there) else self.seen.price_eur_h

    def take(self, most: int, purse: _Purse) -> None:
        while self.granted < most and purse.give(self.cost(self.granted)):
            self.granted += 1

    def fitted(self, limits: FleetLimits) -> Decision:
        decision, kept = self.decision, len(self.held.kept)
        if self.granted >= decision.target:
            return decision
        text = f"of the fleet's {_words(limits)} this pool, priority {self.policy.priority}, gets {self.granted}"
        reason = Reason("fleet", text, self.granted)
        alert = f"{count(decision.target)} wanted, {self.granted} allowed: {text}"
        cut = replace(decision, reasons=(*decision.reasons, reason), alerts=(*decision.alerts, alert))
        if self.granted >= kept:
            return replace(cut, target=self.granted)
        if self.seen.missing:
            held = Reason("missing", f"held, because {'; '.join(self.seen.missing)}", kept)
            return replace(cut, target=kept, reasons=(*cut.reasons, held))
        leaving = victims.leaving(self.held, kept - self.granted, must=True)
        return replace(cut, target=self.granted, victims=(*self.held.lost, *leaving.idle), cordon=leaving.busy)


def _share(pools: list[_Pool], purse: _Purse) -> None:
    for pool in pools:
        pool.take(min(pool.policy.min_machines, pool.decision.target), purse)
    for pool in pools:
        pool.take(pool.decision.target, purse)


def _wait_for_room(pools: list[_Pool], room: _Purse) -> None:
    """New machines only for money that nobody spends any more: those that must go may still be busy."""
    for pool in pools:
        wanted, pool.granted = pool.granted, min(pool.granted, len(pool.there))
        pool.take(wanted, room)


def _purse(limits: FleetLimits, spenders: Iterable[Observation]) -> _Purse:
    spending_now = list(spenders)
    return _Purse(
        inf if limits.budget_eur_h is None else limits.budget_eur_h - sum(spending(seen) for seen in spending_now),
        inf if limits.max_machines is None else limits.max_machines - sum(len(seen.machines) for seen in spending_now),
    )


def _words(limits: FleetLimits) -> str:
    money = "" if limits.budget_eur_h is None else f"{limits.budget_eur_h:g} €/h"
    machines = "" if limits.max_machines is None else count(limits.max_machines)
    return " and ".join(word for word in (money, machines) if word)

"""One pool's decision: what was seen, what its operator decided and what went before, to a target with reasons."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.autoscaler.decide import limits, signs, slo, threshold, victims
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.decide.victims import Stock
from orchestrator.autoscaler.decide.wish import Wish, count
from orchestrator.autoscaler.scale_policy import ScalePolicy, ScaleStrategy
from orchestrator.autoscaler.values import LIVE, Decision, Observation, Override, Reason

__all__ = ["History", "decide"]

_STRATEGIES = {ScaleStrategy.SLO: slo.wish, ScaleStrategy.THRESHOLD: threshold.wish}


def decide(seen: Observation, policy: ScalePolicy, history: History, override: Override | None = None) -> Decision:
    """The machines that this pool should have, which to let go, and why."""
    history, stock = history.as_of(seen.at), victims.stock(seen, policy)
    kept = len(stock.kept)
    wish = _wished(seen, policy, history, stock, override)
    bounded = limits.bound(wish.machines, limits.ceilings(seen, policy, stock), policy.min_machines, kept)
    reasons = [*_lost(stock), *wish.reasons, *bounded.reasons]
    target, leaving = bounded.machines, victims.Leaving()
    if target < kept and seen.missing:
        reasons.append(Reason("missing", f"held, because {'; '.join(seen.missing)}", kept))
        target = kept
    elif target < kept:
        leaving = victims.leaving(stock, kept - target, must=wish.must or bounded.must)
        reasons.extend(why_fewer(kept, target, leaving))
        target = kept - len(leaving.idle) - len(leaving.busy)
    return Decision(
        pool=seen.pool,
        at=seen.at,
        before=seen.count(*LIVE),
        target=target,
        victims=(*stock.lost, *leaving.idle),
        cordon=leaving.busy,
        reasons=tuple(reasons),
        alerts=(*signs.alerts(seen, policy, signs.holding(seen, policy)), *bounded.alerts),
    )


def why_fewer(kept: int, target: int, leaving: victims.Leaving) -> list[Reason]:
    """What hinders or follows from letting machines go."""
    reasons = []
    if leaving.busy:
        reasons.append(Reason("busy", f"{count(len(leaving.busy))} get nothing new, to become idle"))
    left = kept - len(leaving.idle) - len(leaving.busy)
    if left > target:
        why = (
            f"{leaving.paid} more could go, but not before their paid time ends"
            if leaving.paid
            else "the rest is booting"
        )
        reasons.append(Reason("paid", why, left))
    return reasons


def _wished(seen: Observation, policy: ScalePolicy, history: History, stock: Stock, override: Override | None) -> Wish:
    kept = len(stock.kept)
    if override is not None and seen.at < override.until:
        text = (
            f"{override.by or 'somebody'} wants {count(override.target)} for another {override.until - seen.at:.0f} s"
        )
        return Wish(override.target, (Reason("override", text, override.target),), must=True)
    wish = _STRATEGIES[policy.strategy](seen, policy, history, kept)
    if wish.machines == 0:
        return _at_zero(wish, seen, policy, history, kept)
    return wish


def _at_zero(wish: Wish, seen: Observation, policy: ScalePolicy, history: History, kept: int) -> Wish:
    """The way to nothing is long, the way back short."""
    if not kept:
        why = _why_one(seen)
        return wish if why is None else replace(wish, machines=1, reasons=(*wish.reasons, Reason("from-zero", why, 1)))
    idle_s = history.idle_s(seen.at) if signs.is_idle(seen) else 0.0
    if idle_s >= policy.idle_to_zero_s:
        return replace(
            wish, reasons=(*wish.reasons, Reason("to-zero", f"nothing happened for {idle_s:.0f} s: none", 0))
        )
    text = f"the last machine stays until nothing has happened for {policy.idle_to_zero_s:g} s, now {idle_s:.0f} s"
    return replace(wish, machines=1, reasons=(*wish.reasons, Reason("to-zero", text, 1)))


def _why_one(seen: Observation) -> str | None:
    """Why a pool without a machine gets one; None where it needs none."""
    waiting = sum(lane.depth for lane in seen.lanes.values())
    if waiting and (seen.has_unmet or seen.is_unknown or not seen.others):
        return f"{waiting} calls wait and there is no machine: one"
    if seen.has_unmet:
        return "calls wait that no node could run and there is no machine: one"
    return "nobody knows yet what this pool offers: one to learn it from" if seen.is_unknown else None


def _lost(stock: Stock) -> list[Reason]:
    failed = [
        Reason("failed-boot", f"{machine.claim} has not joined for {machine.age_s:.0f} s: replaced")
        for machine in stock.failed
    ]
    noticed = [Reason("notice", f"{machine.claim} is taken away by its provider: drained") for machine in stock.noticed]
    return [*failed, *noticed]

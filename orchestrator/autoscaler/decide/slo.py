"""The strategy `slo`: the fewest machines that keep the 95th percentile of waiting under the pool's target.

Owns the two thresholds: grow at once to what the load needs, let go only what it has not needed, with a
margin, for a while. Machines on the way count, which is all the cooldown that growing has.
"""

from __future__ import annotations

from math import ceil

from orchestrator.autoscaler.decide import needs, signs, victims
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.decide.needs import PoolNeed
from orchestrator.autoscaler.decide.wish import Wish, count
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import COMING, Observation, Reason

LATE_FOR_S = 60.0
"""Calls that wait too long for so long, with nothing on the way, say that the formulas see too little."""


def wish(seen: Observation, policy: ScalePolicy, history: History, kept: int) -> Wish:
    """What the load needs for a pool that has `kept` machines, on the way or ready."""
    need = needs.of_pool(seen, policy, history.season)
    reasons = [*need.reasons]
    grow = need.grow
    if (more := _more_than_the_formula(seen, policy, history, kept)) is not None and more.machines is not None:
        reasons.append(more)
        grow = max(grow, more.machines)
    if grow > kept:
        reasons.append(Reason("grow", f"{count(kept)} ready or on the way: to {grow}", grow))
        return Wish(grow, tuple(reasons))
    down = _down(seen, policy, history, kept, need)
    return Wish(kept if down.machines is None else down.machines, (*reasons, down))


def _more_than_the_formula(seen: Observation, policy: ScalePolicy, history: History, kept: int) -> Reason | None:
    """A measured want that lasts, with nothing on the way, grows the pool by half whatever was computed."""
    if seen.count(*COMING) or not kept:
        return None
    holding = signs.holding(seen, policy)
    lasting = {signs.LATE: LATE_FOR_S, signs.CPU: policy.triggers.cpu_for_s}
    for name, for_s in lasting.items():
        held_s = history.held_s(name, seen.at)
        # Processors that are busy without calls are busy with something that machines do not cure.
        is_load = name == signs.LATE or signs.utilisation(seen) >= policy.triggers.utilisation_low
        if name in holding and held_s >= for_s and is_load:
            grown = ceil(kept * (1.0 + policy.triggers.grow_by) - 1e-9)
            return Reason(name, f"{holding[name]} for {held_s:.0f} s and nothing is on the way: {count(grown)}", grown)
    return None


def _down(seen: Observation, policy: ScalePolicy, history: History, kept: int, need: PoolNeed) -> Reason:
    """A smaller need that has held for long enough, one step at a time."""
    most = max(need.keep, history.kept_within(seen.at, policy.settle_s))
    if most >= kept:
        return Reason("hold", f"{count(kept)}: with a margin, {most} were needed within {policy.settle_s:g} s", kept)
    if (known_s := history.settled_s(seen.at)) < policy.settle_s:
        return Reason(
            "settle", f"{most} would do, but that is known for {known_s:.0f} s of {policy.settle_s:g} s", kept
        )
    holding = signs.holding(seen, policy)
    # Where nothing is called at all, what keeps a machine busy or full is not what it is paid for.
    for name in (signs.LATE,) if signs.is_idle(seen) else (signs.LATE, signs.CPU, signs.MEMORY):
        if name in holding:
            if name != signs.LATE and _has_spare(seen, policy, kept):
                idle = f"{holding[name]}, and one that has held no call for {policy.settle_s:g} s carries none of it"
                return Reason("shrink", f"{idle}: from {kept} to {kept - 1}", kept - 1)
            return Reason("hold", f"{most} would do, but {holding[name]}", kept)
    target = max(most, kept - max(1, int(kept * policy.down_step + 1e-9)))
    enough = f"with a margin of {policy.down_margin - 1:.0%}, {most} were enough for {policy.settle_s:g} s"
    return Reason("shrink", f"{enough}: from {kept} to {target}", target)


def _has_spare(seen: Observation, policy: ScalePolicy, kept: int) -> bool:
    """A machine may go though processors or memory of the pool are in use: no call of its own would move elsewhere.

    It is the very one that would be chosen. Not where the others would then be so full of calls that busy processors
    order a machine again.
    """
    going = victims.leaving(victims.stock(seen, policy), 1).idle
    is_spare = any(machine.claim in going and machine.idle_s >= policy.settle_s for machine in seen.machines)
    return is_spare and signs.utilisation(seen) * kept < policy.triggers.utilisation_low * (kept - 1)

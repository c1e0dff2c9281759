"""The strategy `threshold`: an operator's triggers to the letter.

Utilisation over its limit or any trigger adds a share of the machines there are, utilisation under the
lower one removes one, and after each change nothing changes for a while. Errors alone buy nothing.
"""

from __future__ import annotations

from math import ceil

from orchestrator.autoscaler.decide import signs
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.decide.wish import Wish, count
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import Observation, Reason


def wish(seen: Observation, policy: ScalePolicy, history: History, kept: int) -> Wish:
    """What the triggers say for a pool that has `kept` machines, on the way or ready."""
    limits = policy.triggers
    used = signs.utilisation(seen)
    fired = _fired(seen, policy, history, used)
    if (left_s := _cooldown_left_s(seen, policy, history)) > 0.0:
        would = "; ".join(fired) or f"utilisation is {used:.0%}"
        return Wish(
            kept, (Reason("cooldown", f"{would}, but the last change was too recent: {left_s:.0f} s more", kept),)
        )
    if fired:
        grown = max(kept + 1, ceil(kept * (1.0 + limits.grow_by) - 1e-9)) if kept else 1
        return Wish(
            grown, (Reason("threshold", f"{'; '.join(fired)}: {limits.grow_by:.0%} more, {count(grown)}", grown),)
        )
    if used < limits.utilisation_low and kept > policy.min_machines:
        text = f"utilisation {used:.0%} is under {limits.utilisation_low:.0%}: one less, {count(kept - 1)}"
        return Wish(kept - 1, (Reason("threshold", text, kept - 1),), must=True)
    return Wish(kept, (Reason("threshold", f"utilisation is {used:.0%} and no trigger holds", kept),))


def _fired(seen: Observation, policy: ScalePolicy, history: History, used: float) -> list[str]:
    limits = policy.triggers
    holding = signs.holding(seen, policy)
    fired = [f"utilisation {used:.0%} is over {limits.utilisation_high:.0%}"] if used > limits.utilisation_high else []
    if signs.CPU in holding and (for_s := history.held_s(signs.CPU, seen.at)) >= limits.cpu_for_s:
        fired.append(f"{holding[signs.CPU]} for {for_s:.0f} s")
    fired += [holding[name] for name in (signs.MEMORY, signs.QUEUE, signs.WAIT) if name in holding]
    # More machines do not make a broken server whole: errors count only where there is no room either.
    if signs.ERRORS in holding and used > limits.utilisation_high:
        fired.append(holding[signs.ERRORS])
    return fired


def _cooldown_left_s(seen: Observation, policy: ScalePolicy, history: History) -> float:
    if history.changed_at is None:
        return 0.0
    return history.changed_at + policy.triggers.cooldown_s - seen.at

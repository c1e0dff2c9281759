"""Which machines count, which are lost anyway, and which to let go.

Owns the order of letting go: never a busy one; where a period is paid, at its end. Refuses to say how many.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import COMING, LIVE, ClaimState, MachineSeen, Observation

PAID_ENDS_S = 600.0
"""A machine whose paid period lasts longer serves on: ended now, it would cost the same."""
TOO_LATE_S = 60.0
"""With less than this left, draining and ending would reach into the next paid period."""
LONG_PERIOD_S = 2 * PAID_ENDS_S
"""Steps of billing that are shorter are not waited for."""


@dataclass(frozen=True, slots=True)
class Stock:
    """A pool's machines by what can be counted on.

    Attributes:
        kept: ready or on the way, and no reason to lose them.
        failed: were ordered so long ago that they will not join.
        noticed: their provider takes them away.
        takeable: draining, and may be taken back.
        billing_s: step in which the pool's machines are paid for.
    """

    kept: tuple[MachineSeen, ...]
    failed: tuple[MachineSeen, ...]
    noticed: tuple[MachineSeen, ...]
    takeable: tuple[MachineSeen, ...]
    billing_s: float = 1.0

    @property
    def lost(self) -> tuple[str, ...]:
        """Claims to let go whatever the load, in this order."""
        return tuple(machine.claim for machine in (*self.failed, *self.noticed))


@dataclass(frozen=True, slots=True)
class Leaving:
    """Who goes.

    Attributes:
        idle: drained and ended.
        busy: cordoned, so that they become idle.
        paid: that could go but for the time that is paid for.
    """

    idle: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    paid: int = 0


def stock(seen: Observation, policy: ScalePolicy) -> Stock:
    """Sort a pool's machines."""
    live = [machine for machine in seen.machines if machine.state in LIVE]
    failed = [machine for machine in live if machine.state in COMING and machine.age_s > policy.boot_limit_s]
    noticed = [machine for machine in live if machine.has_notice and machine not in failed]
    draining = [machine for machine in seen.machines if machine.state is ClaimState.DRAINING]
    return Stock(
        kept=tuple(machine for machine in live if machine not in failed and machine not in noticed),
        failed=tuple(failed),
        noticed=tuple(noticed),
        takeable=tuple(machine for machine in draining if not machine.told_to_leave and not machine.has_notice),
        billing_s=seen.billing_s,
    )


def leaving(held: Stock, count: int, *, must: bool = False) -> Leaving:
    """Choose so many of the machines that are kept; fewer where there is no good one.

    Args:
        held: of `stock`.
        count: how many should go.
        must: a limit or a person wants it: machines on the way and those with time paid for go too.
    """
    able = [machine for machine in held.kept if must or machine.state is ClaimState.READY]
    due = [machine for machine in able if must or _is_due(machine, held.billing_s)]
    idle = sorted((machine for machine in due if machine.held == 0), key=_idle_order)[:count]
    busy = sorted((machine for machine in due if machine.held > 0), key=_busy_order)[: max(0, count - len(idle))]
    paid = min(len(able) - len(due), count - len(idle) - len(busy))
    return Leaving(tuple(machine.claim for machine in idle), tuple(machine.claim for machine in busy), paid)


def _is_due(machine: MachineSeen, billing_s: float) -> bool:
    if machine.paid_left_s is None or billing_s < LONG_PERIOD_S:
        return True
    return TOO_LATE_S <= machine.paid_left_s <= PAID_ENDS_S


def _idle_order(machine: MachineSeen) -> tuple[bool, float, float, float, str]:
    """Not joined yet; nearest to the end of its paid time; dearest; newest."""
    return (machine.state not in COMING, *_cost_order(machine))


def _busy_order(machine: MachineSeen) -> tuple[int, float, float, float, str]:
    """Soonest idle, then as if it were."""
    return (machine.held, *_cost_order(machine))


def _cost_order(machine: MachineSeen) -> tuple[float, float, float, str]:
    paid_left_s = inf if machine.paid_left_s is None else machine.paid_left_s
    return (paid_left_s, -(machine.price_eur_h or 0.0), machine.age_s, machine.claim)

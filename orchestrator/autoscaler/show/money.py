"""What machines have cost in a time. Pure.

Price times the time since the order, as far as prices are known: clouds that bill by the begun hour say a little more.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.autoscaler.values import NodeClaim

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
"""Claims of machines that are gone are kept for so long, so no sum looks farther back."""
HOUR_S = 3600.0


def spent_eur(claims: Iterable[NodeClaim], since: float, until: float) -> float:
    """Euros, from one wall clock to another."""
    return sum(_hours(claim, since, until) * (claim.price_eur_h or 0.0) for claim in claims)


def midnight(now: float) -> float:
    """The last one, UTC."""
    return now - now % DAY_S


def _hours(claim: NodeClaim, since: float, until: float) -> float:
    if claim.machine_id is None:
        return 0.0
    end = until if claim.terminated_at is None else claim.terminated_at
    return max(0.0, min(end, until) - max(claim.created_at, since)) / HOUR_S

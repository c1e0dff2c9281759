"""Which rung of a pool's ladder the next machine is ordered on. Pure.

What the clouds refused lately is read from the claims themselves, so a new leader passes by the same
rungs. A refusal that only an operator can mend is forgotten with the process: he mends it in a file
that is read at start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from orchestrator.autoscaler.cloud.errors import (
    CloudDown,
    CredentialsRefused,
    OrderRefused,
    OutOfCapacity,
    QuotaReached,
)
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import NodeClaim, Rung

PASSED_BY_S = {CloudDown.code: 60.0, OutOfCapacity.code: 300.0, QuotaReached.code: 600.0}
"""After the first refusal; twice as long after each that follows, up to `PASSED_BY_MAX_S`."""
PASSED_BY_MAX_S = 3600.0
PERMANENT = frozenset({CredentialsRefused.code, OrderRefused.code})
"""Passed by for `PASSED_BY_MAX_S` at once, and an operator is told."""
REFUSALS = PERMANENT | PASSED_BY_S.keys()
NEVER_MADE = REFUSALS - {CloudDown.code}
"""The cloud said no. Where it said nothing, the machine may be there all the same."""


@dataclass(frozen=True, slots=True)
class PassedBy:
    """A rung that is not tried now.

    Attributes:
        code: of the newest refusal.
        until: wall clock.
        error: what the cloud said.
    """

    rung: Rung
    code: str
    until: float
    error: str


def next_rung(
    policy: ScalePolicy, claims: Sequence[NodeClaim], now: float, *, wanted: Iterable[str] = (), read_at: float = 0.0
) -> Rung | None:
    """The first rung that may be tried; None if none may be now.

    Args:
        policy: whose ladder.
        claims: all that are kept, of any pool: the pools share accounts.
        now: wall clock.
        wanted: patterns of regions that waiting calls ask for; rungs there come first.
        read_at: when the pools file was read.
    """
    shut = {_key(found.rung) for found in passed_by(policy, claims, now, read_at=read_at)}
    open_rungs = [rung for rung in allowed(policy) if _key(rung) not in shut]
    patterns = list(wanted)
    preferred = [rung for rung in open_rungs if any(fnmatchcase(rung.region, pattern) for pattern in patterns)]
    return next(iter([*preferred, *open_rungs]), None)


def allowed(policy: ScalePolicy) -> list[Rung]:
    """Rungs on which this pool's machines may be, whatever the clouds say."""
    return [
        rung
        for rung in policy.ladder
        if (policy.may_use_spot or not rung.is_spot)
        and (not policy.regions or any(fnmatchcase(rung.region, pattern) for pattern in policy.regions))
    ]


def passed_by(policy: ScalePolicy, claims: Sequence[NodeClaim], now: float, *, read_at: float = 0.0) -> list[PassedBy]:
    """Rungs of a policy that are not tried now, and why."""
    found = (_refused(rung, claims, read_at) for rung in allowed(policy))
    return [each for each in found if each is not None and each.until > now]


def was_refused(claim: NodeClaim) -> bool:
    """Its cloud refused the order: no machine was made for it."""
    return claim.machine_id is None and claim.failed_with in NEVER_MADE


def rounds_of(failed: Iterable[NodeClaim]) -> int:
    """How often in a row it was tried: machines ordered before the first of them failed are one try."""
    rounds, failed_at = 0, float("-inf")
    for claim in sorted(failed, key=lambda claim: claim.created_at):
        if claim.created_at > failed_at:
            rounds, failed_at = rounds + 1, claim.failed_at or claim.created_at
        else:
            failed_at = min(failed_at, claim.failed_at or claim.created_at)
    return rounds


def _refused(rung: Rung, claims: Sequence[NodeClaim], read_at: float) -> PassedBy | None:
    served_at = max((c.created_at for c in claims if _key(c.rung) == _key(rung) and c.machine_id), default=0.0)
    refusals = [c for c in claims if c.failed_at and c.failed_at > served_at and _concerns(c, rung, read_at)]
    if not refusals:
        return None
    last = max(refusals, key=lambda claim: claim.failed_at or 0.0)
    return PassedBy(rung, last.failed_with, (last.failed_at or 0.0) + _for_s(last, rounds_of(refusals)), last.error)


def _concerns(claim: NodeClaim, rung: Rung, read_at: float) -> bool:
    if claim.failed_with not in REFUSALS:
        return False
    if claim.failed_with in PERMANENT and (claim.failed_at or 0.0) < read_at:
        return False
    if claim.failed_with == CredentialsRefused.code:
        return claim.rung.provider == rung.provider
    return _key(claim.rung) == _key(rung)


def _for_s(claim: NodeClaim, rounds: int) -> float:
    if claim.failed_with in PERMANENT:
        return PASSED_BY_MAX_S
    return min(PASSED_BY_MAX_S, PASSED_BY_S[claim.failed_with] * 2.0 ** min(rounds - 1, 20))


def _key(rung: Rung) -> tuple[str, str, str, bool, str]:
    return (rung.provider, rung.type, rung.region, rung.is_spot, rung.image)

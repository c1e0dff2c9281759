"""What an operator should look at, in sentences. Pure: from claims, refusals and what looks found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.autoscaler.act.boot_pause import ALERT_AFTER, boot_pause
from orchestrator.autoscaler.act.ladder import PERMANENT, allowed, passed_by
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import ClaimState, NodeClaim

STUCK_TERMINATING_S = 600.0
STUCK_DRAINING_S = 3600.0


def pool_alerts(
    policy: ScalePolicy, pools_own: Sequence[NodeClaim], everyones: Sequence[NodeClaim], now: float, *, read_at: float
) -> list[str]:
    """Of one pool."""
    found = []
    pause = boot_pause(pools_own)
    if pause is not None and pause.failures >= ALERT_AFTER:
        again = "; one is tried at a time" if now >= pause.until else f"; none is ordered for {pause.until - now:.0f} s"
        found.append(f"the last {pause.failures} machines of pool {policy.pool} came to nothing: {pause.error}{again}")
    shut = passed_by(policy, everyones, now, read_at=read_at)
    found += [shown.error for shown in shut if shown.code in PERMANENT]
    if shut and len(shut) == len(allowed(policy)):
        first = min(shut, key=lambda shown: shown.until)
        found.append(
            f"every rung of pool {policy.pool}'s ladder is passed by for {first.until - now:.0f} s: {first.error}"
        )
    if not allowed(policy):
        found.append(
            f"pool {policy.pool}'s ladder has no rung that it may use; see may_use_spot and regions of its policy"
        )
    return list(dict.fromkeys(found))


def stuck(claims: Iterable[NodeClaim], now: float) -> list[NodeClaim]:
    """Machines whose end does not come. They are paid for, so until an operator helps their pool has as many less."""
    return [claim for claim in claims if claim.state is ClaimState.TERMINATING and _is_stuck(claim, now)]


def claim_alerts(claims: Iterable[NodeClaim], providers: Iterable[str], now: float) -> list[str]:
    """Of machines that do not go as they should."""
    known, found = set(providers), []
    for claim in claims:
        for_s = now - claim.state_at
        machine = f"the machine {claim.node} ({claim.machine_id or 'never seen'}) at {claim.rung.provider}"
        if claim.state is not ClaimState.GONE and claim.rung.provider not in known:
            found.append(
                f"{machine} cannot be ended: the pools file has no [providers.{claim.rung.provider}] any more; "
                "put it back"
            )
        elif claim.state is ClaimState.TERMINATING and _is_stuck(claim, now):
            error = f" ({claim.error})" if claim.error else ""
            found.append(
                f"{machine} has been ending for {for_s:.0f} s{error}; see whether it is still paid for: "
                f"it counts against max_machines of pool {claim.pool} until it is gone"
            )
        elif claim.state is ClaimState.DRAINING and for_s > STUCK_DRAINING_S:
            found.append(f"{machine} has been draining for {for_s:.0f} s; see what its node holds")
    return found


def look_alerts(errors: Mapping[str, str], leaks: Mapping[str, Sequence[str]], unlisted: Iterable[str]) -> list[str]:
    """Of what clouds list, or do not."""
    found = [f"the cloud {provider!r} cannot be listed: {error}" for provider, error in errors.items()]
    found += [f"leaked at {provider}, being ended: {leak}" for provider, leaks_ in leaks.items() for leak in leaks_]
    return [*found, *unlisted]


def _is_stuck(claim: NodeClaim, now: float) -> bool:
    return now - claim.state_at > STUCK_TERMINATING_S

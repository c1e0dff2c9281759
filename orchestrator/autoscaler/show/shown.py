"""The autoscaler's values as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from orchestrator.autoscaler.book.scale_log import ROUND_S, SAME_EVERY_S
from orchestrator.autoscaler.show.standing import by_word
from orchestrator.autoscaler.values import Decision, LaneSeen, NodeClaim, Observation, Override
from tasks.invocation import Lane
from tasks.scale_wire import (
    LaneSeenView,
    MachineView,
    OverrideView,
    PoolSeenView,
    ReplayStepView,
    ReplayTotalView,
    ScaleDecisionView,
    ScaleReasonView,
)

HELD_MAX_S = SAME_EVERY_S + 60.0
"""A target counts for so long at most: in a longer gap nobody decided."""


def decision_view(decision: Decision) -> ScaleDecisionView:
    """What should be."""
    return ScaleDecisionView(
        pool=decision.pool,
        at=decision.at,
        before=decision.before,
        target=decision.target,
        victims=list(decision.victims),
        cordon=list(decision.cordon),
        reasons=reason_views(decision),
        alerts=list(decision.alerts),
        is_dry=decision.is_dry,
    )


def reason_views(decision: Decision) -> list[ScaleReasonView]:
    """In the order in which they were weighed."""
    return [ScaleReasonView(rule=one.rule, text=one.text, machines=one.machines) for one in decision.reasons]


def seen_view(seen: Observation) -> PoolSeenView:
    """What it was made of."""
    return PoolSeenView(
        at=seen.at,
        lanes={lane.value: _lane(seen.lanes[lane]) for lane in Lane if lane in seen.lanes},
        machines=by_word(one.state.value for one in seen.machines if not one.refused),
        others=seen.others,
        cpu=seen.cpu,
        memory=seen.memory,
        boot_p90_s=seen.boot_p90_s,
        price_eur_h=seen.price_eur_h,
        quota_left=seen.quota_left,
        missing=list(seen.missing),
        has_unmet=seen.has_unmet,
        is_unknown=seen.is_unknown,
        refused=list(dict.fromkeys(one.refused for one in seen.machines if one.refused)),
    )


def _lane(lane: LaneSeen) -> LaneSeenView:
    return LaneSeenView(
        waiting=lane.waiting,
        queued=lane.queued,
        running=lane.running,
        slots=lane.slots,
        oldest_wait_s=lane.oldest_wait_s,
        wait_p50_s=lane.wait_p50_s,
        wait_p95_s=lane.wait_p95_s,
        arrivals_per_s=lane.arrivals_per_s,
        service_mean_s=lane.service_mean_s,
        error_rate=lane.error_rate,
    )


def override_view(override: Override | None) -> OverrideView | None:
    """A person's word, if there is one."""
    return None if override is None else OverrideView(target=override.target, until=override.until, by=override.by)


def machine_view(claim: NodeClaim, standing: str) -> MachineView:
    """One machine; `standing` is the word that it is shown by."""
    return MachineView(
        claim=claim.id,
        node=claim.node,
        pool=claim.pool,
        state=claim.state,
        state_at=claim.state_at,
        provider=claim.rung.provider,
        type=claim.rung.type,
        region=claim.rung.region,
        is_spot=claim.rung.is_spot,
        machine_id=claim.machine_id,
        address=claim.address,
        created_at=claim.created_at,
        ready_at=claim.ready_at,
        terminated_at=claim.terminated_at,
        expires_at=claim.expires_at,
        price_eur_h=claim.price_eur_h,
        reason=claim.reason,
        failures=claim.failures,
        error=claim.error,
        standing=standing,
    )


def replayed(
    was: Sequence[Decision], would: Sequence[Decision]
) -> tuple[list[ReplayStepView], ReplayTotalView, ReplayTotalView]:
    """Both, moment by moment, and each summed up."""
    steps = [
        ReplayStepView(at=did.at, before=did.before, was=did.target, would=other.target, reasons=reason_views(other))
        for did, other in zip(was, would, strict=True)
    ]
    return steps, _total(was), _total(would)


def rounds(decisions: Sequence[Decision]) -> int:
    """That these stand for, as far as anybody decided."""
    held_s = sum(min(HELD_MAX_S, after.at - one.at) for one, after in pairwise(decisions))
    return round(max(0.0, held_s) / ROUND_S) + bool(decisions)


def _total(decisions: Sequence[Decision]) -> ReplayTotalView:
    held = [(one.target, min(HELD_MAX_S, after.at - one.at)) for one, after in pairwise(decisions)]
    return ReplayTotalView(
        machine_h=sum(target * for_s for target, for_s in held) / 3600.0,
        most=max((one.target for one in decisions), default=0),
        changes=sum(1 for one, after in pairwise(decisions) if one.target != after.target),
    )

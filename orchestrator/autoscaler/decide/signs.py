"""What an Observation shows at once: how full a pool is, and which of its limits are passed."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import LaneSeen, Observation
from tasks.invocation import Lane

CPU = "cpu"
MEMORY = "memory"
QUEUE = "queue"
WAIT = "wait"
ERRORS = "errors"
LATE = "late"
"""Calls wait longer than the pool's target while its slots are taken: what was ordered is not enough."""
FULL = 0.9
"""Share of the slots in use from which on waiting is for want of slots."""


def target_wait_s(lane: Lane, policy: ScalePolicy) -> float:
    """How long 95 of 100 calls of this lane may wait."""
    return policy.target_wait_agents_s if lane is Lane.AGENTS else policy.target_wait_s


def utilisation(seen: Observation) -> float:
    """Running over slots. Without a slot, what waits is counted as all in use."""
    slots = sum(lane.slots for lane in seen.lanes.values())
    if slots:
        return sum(lane.running for lane in seen.lanes.values()) / slots
    return 1.0 if any(lane.depth or lane.running for lane in seen.lanes.values()) else 0.0


def is_idle(seen: Observation) -> bool:
    """Nothing arrives, waits or runs, and nothing is to be learned."""
    if seen.has_unmet or seen.is_unknown:
        return False
    return not any(lane.depth or lane.running or lane.arrivals_per_s > 0.0 for lane in seen.lanes.values())


def holding(seen: Observation, policy: ScalePolicy) -> Mapping[str, str]:
    """Limits that are passed now, each with its figures."""
    limits = policy.triggers
    depth = sum(lane.depth for lane in seen.lanes.values())
    found = {}
    if seen.cpu is not None and seen.cpu > limits.cpu:
        found[CPU] = f"CPU {seen.cpu:.0%} is over {limits.cpu:.0%}"
    if seen.memory is not None and seen.memory > limits.memory:
        found[MEMORY] = f"memory {seen.memory:.0%} is over {limits.memory:.0%}"
    if depth > limits.queue_depth:
        found[QUEUE] = f"{depth} calls wait, more than {limits.queue_depth}"
    for name, lane in seen.lanes.items():
        if lane.wait_p95_s is not None and lane.wait_p95_s > limits.wait_p95_s:
            found[WAIT] = f"{name} p95 wait {lane.wait_p95_s:.1f} s is over {limits.wait_p95_s:g} s"
        if lane.error_rate > limits.error_rate:
            found[ERRORS] = f"{name} errors {lane.error_rate:.1%} are over {limits.error_rate:.1%}"
        if _is_late(lane, target_wait_s(name, policy)):
            found[LATE] = (
                f"{name} p95 wait is over {target_wait_s(name, policy):g} s, {lane.depth} wait and "
                f"{lane.running} of {lane.slots} slots are in use"
            )
    return found


def alerts(seen: Observation, policy: ScalePolicy, held: Mapping[str, str]) -> tuple[str, ...]:
    """What an operator should look at: more machines would not help."""
    found = []
    if ERRORS in held:
        found.append(f"{held[ERRORS]}: servers or nodes fail; machines are not bought for that")
    for name, lane in seen.lanes.items():
        target = target_wait_s(name, policy)
        is_roomy = lane.slots > 0 and lane.running < FULL * lane.slots
        if is_roomy and lane.depth and lane.oldest_wait_s > 2 * target:
            found.append(
                f"{name}: a call has waited for {lane.oldest_wait_s:.0f} s though {lane.slots - lane.running} slots "
                "are free: a limit, a region or a missing tool holds it, not the size of the pool"
            )
    return tuple(found)


def _is_late(lane: LaneSeen, target_s: float) -> bool:
    waited = max(lane.wait_p95_s or 0.0, lane.oldest_wait_s)
    return waited > target_s and lane.depth > 0 and lane.running >= FULL * lane.slots

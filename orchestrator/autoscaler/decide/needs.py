"""The machines that a pool's load needs, by the formulas: of both lanes, the lane that needs more.

Owns the step from rates and backlogs to machines, for growing and, with a margin, for keeping.
Refuses to know what there is: that is `slo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from orchestrator.autoscaler.decide.queueing import slots_needed
from orchestrator.autoscaler.decide.season import Season
from orchestrator.autoscaler.decide.signs import target_wait_s
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import ClaimState, LaneSeen, Observation, Reason
from tasks.invocation import Lane

TREND_SIGMAS = 3.0
"""A slope that chance could have made is none."""
TREND_CAP = 1.5
"""No trend is followed further than to this many times the present rate."""
FORESEEN = 1.25
"""A day is like other days while its rate is not over this many times theirs."""
AFTER_BOOT_S = 60.0
"""Looked ahead beyond the boot: until the next order could be there."""
CALLS_EXPECTED = 0.5
"""A season that expects fewer calls within the time looked ahead expects none."""
GROWTH_BLIND = 2
"""Times the machines there are: as far as a pool grows whose service time nobody knows yet."""


@dataclass(frozen=True, slots=True)
class PoolNeed:
    """Machines, beside nodes that joined by hand.

    Attributes:
        grow: with fewer, more are ordered.
        keep: with more, some are let go.
    """

    grow: int
    keep: int
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class _Load:
    rate: float
    """Calls per second that must be served when machines ordered now are there."""
    erlang: float
    why: tuple[Reason, ...] = ()


def boot_s(seen: Observation, policy: ScalePolicy) -> float:
    """Order to ready, as seen, else as assumed."""
    return policy.boot_s if seen.boot_p90_s is None else seen.boot_p90_s


def of_pool(seen: Observation, policy: ScalePolicy, season: Season) -> PoolNeed:
    """What the pool needs: the most that one of its lanes does."""
    needs = [
        _of_lane(name, lane, seen, policy, season) for name, lane in seen.lanes.items() if lane.slots_per_machine > 0
    ]
    if not needs:
        return PoolNeed(0, 0)
    reasons = tuple(reason for need in sorted(needs, key=lambda need: need.grow) for reason in need.reasons)
    return PoolNeed(max(need.grow for need in needs), max(need.keep for need in needs), reasons)


def _of_lane(name: Lane, lane: LaneSeen, seen: Observation, policy: ScalePolicy, season: Season) -> PoolNeed:
    if lane.service_mean_s is None or lane.service_mean_s <= 0.0:
        return _blind(name, lane, seen)
    service_s, each = lane.service_mean_s, lane.slots_per_machine
    load = _load(name, lane, seen, policy, season)
    wait_s = max(0.25, target_wait_s(name, policy))
    by_hand = _slots_by_hand(lane, seen)
    most = policy.max_machines * each + by_hand + 1
    steady = slots_needed(load.erlang, service_s, wait_s, scv=lane.service_scv, most=most)
    late = _backlog(lane, seen, policy)
    # A long call takes its slot for longer than the backlog may last: then one slot for each is all that helps.
    catching_up = load.erlang + late * min(1.0, service_s / policy.catch_up_s)
    slots = max(float(steady), catching_up) * policy.headroom
    grow = max(0, ceil((slots - by_hand) / each - 1e-9))
    keep = max(0, ceil((slots * policy.down_margin - by_hand) / each - 1e-9))
    beside = f" beside {by_hand} slots joined by hand" if by_hand else ""
    text = (
        f"{name}: {load.rate:.3g} calls/s at {service_s:.3g} s need {steady} slots for p95 wait under {wait_s:g} s"
        + (f", {late:.0f} late calls {catching_up:.0f} slots to be done in {policy.catch_up_s:g} s" if late else "")
        + f"; with {policy.headroom - 1:.0%} more: {_machines(grow)} of {each}{beside}"
    )
    return PoolNeed(grow, max(grow, keep), (*load.why, Reason("slo", text, grow)))


def _load(name: Lane, lane: LaneSeen, seen: Observation, policy: ScalePolicy, season: Season) -> _Load:
    """The rate now, where the trend leads by the time help is there, and what this hour brought on other days."""
    service_s = lane.service_mean_s or 0.0
    ahead_s = boot_s(seen, policy) + AFTER_BOOT_S
    expected = season.ahead(name, seen.at, ahead_s) if policy.use_season else None
    rate, why = lane.arrivals_per_s, []
    if (grown := _risen(lane, ahead_s, expected)) > rate:
        why.append(Reason("trend", f"{name}: {rate:.3g} calls/s rise to {grown:.3g} by the time a machine is up"))
        rate = grown
    # No more calls can be under way than there are and will come: the rate of one minute says little of long calls.
    erlang = min(rate * service_s, lane.running + lane.depth + rate * ahead_s)
    if expected is not None and expected > rate and expected * ahead_s > CALLS_EXPECTED:
        why.append(Reason("season", f"{name}: at this time of day {expected:.3g} calls/s arrived on other days"))
        rate = expected
        erlang = max(erlang, min(expected * service_s, lane.running + lane.depth + expected * ahead_s))
    return _Load(rate, erlang, tuple(why))


def _risen(lane: LaneSeen, ahead_s: float, expected: float | None) -> float:
    """The rate at which a trend arrives. A rise that other days had too ends where it did on those."""
    rate, slope = lane.arrivals_per_s, lane.arrivals_trend
    is_foreseen = expected is not None and rate <= FORESEEN * expected
    if slope <= 0.0 or slope <= TREND_SIGMAS * lane.arrivals_trend_sigma or is_foreseen:
        return rate
    return min(rate * TREND_CAP, rate + slope * (ahead_s - AFTER_BOOT_S / 2))


def _backlog(lane: LaneSeen, seen: Observation, policy: ScalePolicy) -> float:
    """Calls that will wait when help arrives: those that do, and those that come faster than they are served."""
    service_s = lane.service_mean_s or 1.0
    soon_s = min(boot_s(seen, policy), 60.0)
    surplus = lane.arrivals_per_s - lane.slots / service_s
    return min(max(0.0, lane.depth + surplus * soon_s), lane.depth + lane.arrivals_per_s * soon_s)


def _slots_by_hand(lane: LaneSeen, seen: Observation) -> int:
    """Slots of nodes that were not claimed."""
    if not seen.others:
        return 0
    return max(0, lane.slots - seen.count(ClaimState.READY) * lane.slots_per_machine)


def _blind(name: Lane, lane: LaneSeen, seen: Observation) -> PoolNeed:
    """No call has ended yet: as many slots as calls, growing by doubling, and not while machines are on the way."""
    calls = lane.running + lane.depth
    if not calls:
        return PoolNeed(0, 0)
    by_hand = _slots_by_hand(lane, seen)
    wanted = max(0, ceil((calls - by_hand) / lane.slots_per_machine))
    ready, coming = seen.count(ClaimState.READY), seen.count(ClaimState.BOOTING, ClaimState.PROVISIONING)
    grow = min(wanted, ready + coming if coming else max(1, GROWTH_BLIND * ready))
    text = (
        f"{name}: {calls} calls run or wait and none has ended, so their time is not known: "
        f"{_machines(grow)} of {lane.slots_per_machine}"
    )
    return PoolNeed(grow, max(grow, wanted), (Reason("slo", text, grow),))


def _machines(count: int) -> str:
    return "1 machine" if count == 1 else f"{count} machines"

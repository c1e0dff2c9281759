"""The rules that are compared: ours as they are shipped, and simple models of what others do.

The others get the same machines and the same gentle actuator (busy machines finish their calls first); where
their real behaviour is harsher, this flatters them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from benchmarks.sim.eyes import TICK_S
from benchmarks.sim.optimum import Plan
from benchmarks.sim.traces import DAY_S, Drawn
from benchmarks.sim.world import Rule
from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.decide.season import RATE_WINDOW_S, Season
from orchestrator.autoscaler.scale_policy import ScalePolicy, ScaleStrategy
from orchestrator.autoscaler.values import LIVE, ClaimState, Decision, MachineSeen, Observation, Rung
from tasks.invocation import Lane

MOST = 10
LADDER = (Rung("sim", price_eur_h=0.01),)


class Ours:
    """`decide` and `History` of the product; the season is learned from the first day's arrivals."""

    def __init__(self, policy: ScalePolicy, drawn: Drawn) -> None:
        self._policy = policy
        self._history = History(season=_season(drawn) if policy.use_season else Season())

    def decide(self, seen: Observation) -> Decision:
        """As the leader's loop does."""
        decision = decide(seen, self._policy, self._history)
        self._history = self._history.after(seen, decision, self._policy)
        return decision


class Fixed:
    """So many machines, whatever comes."""

    def __init__(self, machines: int) -> None:
        self._machines = machines

    def decide(self, seen: Observation) -> Decision:
        """Replaces what is lost."""
        return _to(seen, self._machines)


class Replicas:
    """What Kubernetes' HPA does with a wanted number, at least 1: tolerance, rate of growth, stabilisation.

    Source: kubernetes.io, Horizontal Pod Autoscaling: down to the highest wish of 300 s; up by 100 % or 4 per 15 s.
    """

    DOWN_S = 300.0

    def __init__(self, wanted: Callable[[Observation, int], int]) -> None:
        self._wanted = wanted
        self._wishes: list[tuple[float, int]] = []

    def decide(self, seen: Observation) -> Decision:
        """Every 15 s, as its controller does."""
        now = len(_staying(seen))
        wish = self._wanted(seen, now)
        self._wishes = [(at, machines) for at, machines in self._wishes if at > seen.at - self.DOWN_S]
        self._wishes.append((seen.at, wish))
        if wish < now:
            wish = min(now, max(machines for _, machines in self._wishes))
        return _to(seen, max(1, min(MOST, wish, now + max(now, 4))))


def queue_length(seen: Observation, now: int) -> int:
    """KEDA's redis list scaler: the length of the list over a target of 5, with the HPA's tolerance of 10 %."""
    waiting = sum(lane.depth for lane in seen.lanes.values())
    return now if now and abs(waiting / 5 / now - 1.0) <= 0.1 else ceil(waiting / 5)


def queue_and_running(seen: Observation, now: int) -> int:
    """The same with what runs counted too, for a target of the machine's slots."""
    calls = sum(lane.depth + lane.running for lane in seen.lanes.values())
    each = max(lane.slots_per_machine for lane in seen.lanes.values())
    return now if now and abs(calls / each / now - 1.0) <= 0.1 else ceil(calls / each)


def cpu_share(seen: Observation, now: int) -> int:
    """HPA: ceil(n * metric / target), of ready machines, for 70 %, with a tolerance of 10 %."""
    if seen.cpu is None:
        return now
    ratio = seen.cpu / 0.7
    return now if abs(ratio - 1.0) <= 0.1 else ceil(seen.count(ClaimState.READY) * ratio)


class Clairvoyant:
    """Carries out a plan that was made with the trace at hand."""

    def __init__(self, plan: Plan, day_at: float) -> None:
        self._plan, self._day_at = plan, day_at

    def decide(self, seen: Observation) -> Decision:
        """Order so that it is ready in time; let go only at the end of a paid hour, and only for good."""
        now = seen.at - self._day_at
        need = self._plan.most(now, now + self._plan.boot_s + 3 * TICK_S)
        staying = _staying(seen)
        ending = [one for one in staying if (one.paid_left_s or 0.0) <= 3 * TICK_S and one.state is ClaimState.READY]
        going = ending[: max(0, len(staying) - need)]
        return _as_decision(seen, max(need, len(staying) - len(going)), going)


def rules(drawn: Drawn) -> dict[str, Callable[[], Rule]]:
    """Every rule by name, made anew for each run."""
    policy = ScalePolicy("sim", LADDER, max_machines=MOST, boot_s=drawn.trace.boot_s)
    found: dict[str, Callable[[], Rule]] = {
        "slo": lambda: Ours(policy, drawn),
        "slo, no season": lambda: Ours(_with(policy, use_season=False), drawn),
        "threshold": lambda: Ours(_with(policy, strategy=ScaleStrategy.THRESHOLD), drawn),
        "KEDA-like, list": lambda: Replicas(queue_length),
        "KEDA-like, list + running": lambda: Replicas(queue_and_running),
        "HPA-like": lambda: Replicas(cpu_share),
        "fixed 4": lambda: Fixed(4),
        "fixed 10": lambda: Fixed(MOST),
        "clairvoyant": lambda: Clairvoyant(Plan.of(drawn, policy.target_wait_s, MOST), DAY_S),
    }
    return found


def _with(policy: ScalePolicy, *, use_season: bool = True, strategy: ScaleStrategy = ScaleStrategy.SLO) -> ScalePolicy:
    return ScalePolicy(
        policy.pool,
        policy.ladder,
        strategy=strategy,
        max_machines=policy.max_machines,
        boot_s=policy.boot_s,
        use_season=use_season,
    )


def _season(drawn: Drawn) -> Season:
    """One day of looks at the rate of the last minute, as the loop's."""
    season, first, end = Season(), 0, 0
    times = drawn.learned
    for tick in range(1, int(drawn.trace.length_s / TICK_S) + 1):
        at = tick * TICK_S
        while end < len(times) and times[end] <= at:
            end += 1
        while first < end and times[first] <= at - RATE_WINDOW_S:
            first += 1
        season = season.learn(at, {Lane.TOOLS: (end - first) / min(at, RATE_WINDOW_S)})
    return season.learn(DAY_S - TICK_S, {})


def _staying(seen: Observation) -> list[MachineSeen]:
    return [machine for machine in seen.machines if machine.state in LIVE and not machine.has_notice]


def _to(seen: Observation, target: int) -> Decision:
    """Newest first, as Kubernetes does; machines that are taken away are drained and replaced."""
    staying = sorted(_staying(seen), key=lambda machine: machine.age_s)
    return _as_decision(seen, target, staying[: max(0, len(staying) - target)])


def _as_decision(seen: Observation, target: int, going: list[MachineSeen]) -> Decision:
    noticed = [one.claim for one in seen.machines if one.has_notice and one.state in LIVE]
    return Decision(
        seen.pool,
        seen.at,
        seen.count(*LIVE),
        target,
        victims=(*noticed, *(one.claim for one in going if not one.held)),
        cordon=tuple(one.claim for one in going if one.held),
    )

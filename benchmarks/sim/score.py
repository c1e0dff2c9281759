"""What a run is worth, and whether any other rule is better than `slo` in both figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean

from benchmarks.sim.traces import Drawn
from benchmarks.sim.world import Books

TARGET_S = 5.0
OURS = "slo"
LIMITS = frozenset({"clairvoyant"})
"""Know the trace: what could be reached, and no rule."""
WAIT_STEP_S = 0.01
"""Waits are compared in steps of this: nobody feels less, and the sensors do not measure it."""


@dataclass(frozen=True)
class Score:
    """One rule on one trace and seed, or the mean of several seeds.

    Attributes:
        wait_p95_s: accepted to started.
        response_p95_s: accepted to ended.
        late: share of calls that waited longer than the target.
        billed_h: machine-hours, every begun hour of each machine whole.
        used_h: machine-hours from order to gone.
        events: decisions that changed the size.
        lost: calls cut off by a machine that was taken away, and run again.
    """

    trace: str
    rule: str
    wait_p95_s: float
    response_p95_s: float
    late: float
    billed_h: float
    used_h: float
    events: float
    lost: float


def score(drawn: Drawn, rule: str, books: Books) -> Score:
    """Of one run."""
    waits, responses = sorted(books.waits), sorted(books.responses)
    last = int(0.95 * len(waits))
    return Score(
        drawn.trace.name,
        rule,
        waits[last],
        responses[last],
        sum(wait > TARGET_S for wait in waits) / len(waits),
        books.billed_h,
        books.used_h,
        books.events,
        books.lost,
    )


def averaged(scores: Iterable[Score]) -> list[Score]:
    """The mean over seeds, per trace and rule, in the order of their first run."""
    by_name: dict[tuple[str, str], list[Score]] = {}
    for one in scores:
        by_name.setdefault((one.trace, one.rule), []).append(one)
    return [
        Score(
            trace,
            rule,
            mean(one.wait_p95_s for one in runs),
            mean(one.response_p95_s for one in runs),
            mean(one.late for one in runs),
            mean(one.billed_h for one in runs),
            mean(one.used_h for one in runs),
            mean(one.events for one in runs),
            mean(one.lost for one in runs),
        )
        for (trace, rule), runs in by_name.items()
    ]


def better(scores: list[Score]) -> list[tuple[Score, Score]]:
    """Rules that beat ours on a trace in waiting and in hours, each with ours."""
    ours = {one.trace: one for one in scores if one.rule == OURS}
    return [
        (one, ours[one.trace])
        for one in scores
        if one.rule not in LIMITS and not one.rule.startswith(OURS) and _beats(one, ours[one.trace])
    ]


def _beats(other: Score, ours: Score) -> bool:
    waits_less = round(other.wait_p95_s / WAIT_STEP_S) < round(ours.wait_p95_s / WAIT_STEP_S)
    return waits_less and other.billed_h < ours.billed_h


def table(scores: list[Score]) -> str:
    """Markdown, one block of rows per trace."""
    lines = [
        "| trace | rule | p95 wait, s | p95 response, s | calls over 5 s | hours billed | hours used | changes |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    before = ""
    for one in scores:
        trace = "" if one.trace == before else one.trace
        before = one.trace
        name = f"**{one.rule}**" if one.rule == OURS else one.rule
        lines.append(
            f"| {trace} | {name} | {one.wait_p95_s:.2f} | {one.response_p95_s:.2f} | {one.late:.1%} | "
            f"{one.billed_h:.1f} | {one.used_h:.1f} | {one.events:.0f} |"
        )
    return "\n".join(lines)

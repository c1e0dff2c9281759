"""The simulation, small: two hours with two bursts, by the product's own decisions."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.sim.rules import rules
from benchmarks.sim.score import Score, better, score
from benchmarks.sim.traces import DAY_S, TRACES, Drawn, draw
from benchmarks.sim.world import World

SEED = 1


def two_hours() -> Drawn:
    """The burst trace up to the end of its second burst, and as much of the day before."""
    whole = next(trace for trace in TRACES if trace.name == "hourly bursts")
    return draw(replace(whole, length_s=7600.0), SEED)


def played(drawn: Drawn, rule: str) -> Score:
    """One rule on it."""
    return score(drawn, rule, World(drawn, rules(drawn)[rule](), start_at=DAY_S).run())


def test_slo_meets_a_burst_that_threshold_misses() -> None:
    """What came yesterday finds machines today: the target is kept, and another rule is far from it."""
    drawn = two_hours()
    ours, theirs = played(drawn, "slo"), played(drawn, "threshold")
    assert ours.wait_p95_s < 5.0 < theirs.wait_p95_s
    assert not better([ours, theirs])


def test_the_same_seed_gives_the_same_figures() -> None:
    """A table that changes by itself proves nothing."""
    drawn = two_hours()
    assert drawn.arrivals == two_hours().arrivals
    assert played(drawn, "slo") == played(drawn, "slo")


def test_a_rule_that_is_better_in_both_is_named() -> None:
    """The check of `make sim` fails when it should: less waiting for fewer hours, and not otherwise."""
    ours = Score("t", "slo", 1.0, 4.0, 0.0, 20.0, 18.0, 3, 0)
    winner = Score("t", "other", 0.5, 4.0, 0.0, 19.0, 18.0, 3, 0)
    dearer = Score("t", "dearer", 0.5, 4.0, 0.0, 21.0, 18.0, 3, 0)
    later = Score("t", "later", 1.5, 4.0, 0.0, 10.0, 18.0, 3, 0)
    seer = Score("t", "clairvoyant", 0.5, 4.0, 0.0, 10.0, 18.0, 3, 0)
    assert better([ours, winner, dearer, later, seer]) == [(winner, ours)]

"""Rates and waits of the last minute."""

from __future__ import annotations

import pytest

from orchestrator.happenings import Accepted, AttemptReleased, Ended
from orchestrator.observability.pulse import WINDOW_S, Pulse, quantile
from tasks.invocation import Call, Invocation, Lane, Principal, State
from tasks.testing.clock import FakeClock


def _released(waited_s: float) -> AttemptReleased:
    return AttemptReleased("id", 1, "t.t", None, "p", "n", Lane.TOOLS, "q", 0.0, waited_s, ())


def _ended(state: State) -> Ended:
    return Ended("id", state, 0.0, "t.t", None)


def test_a_minute_is_counted_and_then_forgotten() -> None:
    """Each second's counts leave the window with it."""
    clock = FakeClock()
    pulse = Pulse(clock)
    clock.advance(float(WINDOW_S))
    call = Invocation("id", Call("t.t"), Principal("p"), Lane.TOOLS, State.WAITING, 0.0)
    for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED):
        pulse.hear(Accepted(call))
        pulse.hear(_released(2.0))
        pulse.hear(_ended(state))
    seen = pulse.view()
    assert (seen.accepted_per_s, seen.ended_per_s, seen.failed_per_s) == (3 / 60, 3 / 60, 1 / 60)
    assert (seen.wait_p50_s, seen.wait_p95_s) == (2.0, 2.0)
    clock.advance(WINDOW_S + 1.0)
    pulse.hear(Accepted(call))
    seen = pulse.view()
    assert (seen.accepted_per_s, seen.ended_per_s, seen.wait_p50_s) == (1 / 60, 0.0, None)


def test_a_young_process_says_of_how_long_it_speaks() -> None:
    """Else the first seconds after a change of leaders look idle."""
    clock = FakeClock()
    pulse = Pulse(clock)
    clock.advance(10.0)
    pulse.hear(_ended(State.SUCCEEDED))
    assert (pulse.view().window_s, pulse.view().ended_per_s) == (10.0, 0.1)


@pytest.mark.parametrize(
    ("values", "p50", "p95"),
    [([], None, None), ([1.0], 1.0, 1.0), ([1.0, 2.0], 1.0, 2.0), ([float(n) for n in range(1, 101)], 50.0, 95.0)],
)
def test_quantiles_are_values_that_were_seen(values: list[float], p50: float | None, p95: float | None) -> None:
    """Nearest rank."""
    assert (quantile(values, 0.5), quantile(values, 0.95)) == (p50, p95)

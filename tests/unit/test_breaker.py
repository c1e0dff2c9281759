"""The circuit breaker as a table of what happens when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.health.breaker import RETRY_AFTER_S, THRESHOLD, Breaker


def _opened(at_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    told = [breaker.failed(at_s) for _ in range(THRESHOLD)]
    assert told == [False] * (THRESHOLD - 1) + [True]
    return breaker


def test_it_opens_at_the_threshold_and_stays_open_for_its_time() -> None:
    """Four failures are bad luck."""
    breaker = _opened()
    assert breaker.is_open(0.0)
    assert breaker.is_open(RETRY_AFTER_S - 0.1)
    assert not breaker.is_open(RETRY_AFTER_S)
    assert breaker.left_s(RETRY_AFTER_S - 10) == 10


def test_what_was_placed_before_it_opened_changes_nothing() -> None:
    """Stragglers fail too; they do not put the probe off."""
    breaker = _opened()
    assert not breaker.failed(30.0)
    assert not breaker.is_open(RETRY_AFTER_S)


def test_one_probe_goes_through_a_half_open_circuit() -> None:
    """Until it has answered nothing follows it."""
    breaker = _opened()
    assert breaker.half_opened(RETRY_AFTER_S)
    assert not breaker.half_opened(RETRY_AFTER_S + 1)
    assert breaker.placed(RETRY_AFTER_S)
    assert breaker.is_open(RETRY_AFTER_S + 1)
    assert not breaker.placed(RETRY_AFTER_S + 1)


def test_a_failed_probe_opens_it_anew_and_a_silent_one_is_tried_again() -> None:
    """Each time for the whole while."""
    breaker = _opened()
    breaker.placed(RETRY_AFTER_S)
    assert breaker.said_nothing()
    assert not breaker.is_open(RETRY_AFTER_S + 1)
    breaker.placed(RETRY_AFTER_S + 1)
    assert breaker.failed(RETRY_AFTER_S + 2)
    assert breaker.is_open(2 * RETRY_AFTER_S + 1)
    assert breaker.half_opened(2 * RETRY_AFTER_S + 2)


def test_a_probe_that_is_never_heard_of_is_followed_by_another() -> None:
    """Its release may have been refused: then nobody reports its end."""
    breaker = _opened()
    assert breaker.half_opened(RETRY_AFTER_S)
    assert breaker.placed(RETRY_AFTER_S)
    assert breaker.is_open(2 * RETRY_AFTER_S - 0.1)
    assert breaker.half_opened(2 * RETRY_AFTER_S)
    assert breaker.placed(2 * RETRY_AFTER_S)


@given(st.lists(st.tuples(st.sampled_from(["failed", "placed", "said_nothing", "wait"]), st.floats(0, 90))))
def test_never_more_than_one_probe_is_on_its_way(steps: list[tuple[str, float]]) -> None:
    """Whatever comes in which order, and it is never open for longer than its time."""
    breaker, now_s, probes = Breaker(), 0.0, 0
    for step, seconds in steps:
        now_s += seconds
        if step == "placed":
            probes += breaker.placed(now_s)
            assert not breaker.placed(now_s)
        elif step != "wait":
            getattr(breaker, step)(*([now_s] if step == "failed" else []))
        assert not breaker.is_open(now_s + RETRY_AFTER_S + 0.001)
        if breaker.opened_at_s is None:
            assert breaker.failures < THRESHOLD
            assert probes == 0

"""The queueing formulas against figures that others published, and against what they must not do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.autoscaler.decide.queueing import late_share, slots_needed


@pytest.mark.parametrize(
    ("slots", "load", "delayed"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (10, 8.0, 0.4092), (20, 15.0, 0.1604), (100, 90.0, 0.2169)],
)
def test_erlang_c_is_what_the_tables_say(slots: int, load: float, delayed: float) -> None:
    """With no wait allowed, the late share is the chance to wait at all: Erlang's C."""
    assert late_share(slots, load, 1.0, 0.0) == pytest.approx(delayed, abs=5e-4)


def test_one_server_waits_as_the_textbook_says() -> None:
    """M/M/1: P(W > t) = rho * exp(-(mu - lambda) t)."""
    assert late_share(1, 0.5, 2.0, 4.0) == pytest.approx(0.5 * 2.718281828 ** (-(0.5 - 0.25) * 4.0), rel=1e-6)


@given(st.floats(0.01, 300.0), st.floats(0.01, 100.0), st.floats(0.0, 100.0), st.floats(0.0, 10.0))
def test_the_needed_slots_are_enough_and_not_one_too_many(
    load: float, service_s: float, wait_s: float, scv: float
) -> None:
    """With them the share of late calls is within bounds, with one less it is not."""
    slots = slots_needed(load, service_s, wait_s, scv=scv)
    assert late_share(slots, load, service_s, wait_s, scv=scv) <= 0.05
    assert late_share(slots - 1, load, service_s, wait_s, scv=scv) > 0.05


@given(st.floats(0.0, 200.0), st.floats(0.0, 50.0))
def test_more_load_needs_no_fewer_slots(load: float, more: float) -> None:
    """Monotone, or a pool would shrink as load grows."""
    assert slots_needed(load + more, 1.5, 5.0) >= slots_needed(load, 1.5, 5.0)


def test_the_search_ends_where_it_is_told_to() -> None:
    """A load that no pool could serve costs no time."""
    assert slots_needed(1e12, 1.0, 1.0, most=80) == 80

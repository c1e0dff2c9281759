"""The past in numbers: windows that end, percentiles, and a trend that knows how sure it is."""

from __future__ import annotations

import random

import pytest

from orchestrator.autoscaler.observe.windows import (
    SAMPLES_MAX,
    SECONDS_KEPT,
    Samples,
    Seconds,
    binned,
    percentile,
    spread,
    trend,
)


def test_samples_end_with_their_time_and_their_number() -> None:
    """Memory is bounded, and what is older than asked for is not counted."""
    samples = Samples()
    for index in range(SAMPLES_MAX + 10):
        samples.add(float(index), index * 2.0)
    assert len(samples.all()) == SAMPLES_MAX
    assert samples.since(SAMPLES_MAX + 8.0) == [(SAMPLES_MAX + 8) * 2.0, (SAMPLES_MAX + 9) * 2.0]


def test_seconds_forget_a_turn_of_the_window() -> None:
    """A count of five minutes ago is not found again in the second that has its place."""
    seconds = Seconds()
    seconds.add(1000)
    seconds.add(1000, 2)
    assert seconds.sums(1000, 1, 1) == [3]
    seconds.add(1000 + SECONDS_KEPT)
    seconds.add(1000)
    assert seconds.sums(1000, 1, 1) == [0]
    assert seconds.sums(1000 + SECONDS_KEPT, 1, 1) == [1]


def test_sparse_and_dense_counts_have_the_same_bins() -> None:
    """What waits and what was released are added bin by bin."""
    draw = random.Random(1)
    seconds, sparse = Seconds(), {}
    for _ in range(500):
        second = draw.randrange(2000, 2000 + 240)
        seconds.add(second)
        sparse[second] = sparse.get(second, 0) + 1
    assert seconds.sums(2000, 10, 24) == binned(sparse, 2000, 10, 24)
    assert binned(sparse, 2100, 1, 50) == seconds.sums(2100, 1, 50)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3.0], 0.95, 3.0), ([3.0, 1.0, 2.0], 0.5, 2.0), ([float(n) for n in range(1, 101)], 0.95, 95.0)],
)
def test_percentiles_are_values_that_were_measured(values: list[float], share: float, expected: float | None) -> None:
    """Nearest rank, whatever the order."""
    assert percentile(values, share) == expected


def test_spread_knows_exponential_from_constant() -> None:
    """The squared coefficient of variation is 0 of what is constant, and 1 of exponential times."""
    draw = random.Random(2)
    constant, exponential = spread([2.0] * 9), spread([draw.expovariate(0.5) for _ in range(20_000)])
    assert constant == (2.0, 0.0, 2.0)
    assert exponential is not None
    assert exponential.mean == pytest.approx(2.0, rel=0.03)
    assert exponential.scv == pytest.approx(1.0, rel=0.06)
    assert exponential.p95 == pytest.approx(6.0, rel=0.05)
    assert spread([]) is None


def test_a_straight_line_has_its_slope_and_no_error() -> None:
    """0.02 calls per second more with every second."""
    slope, sigma = trend([1.0 + 0.02 * 10 * index for index in range(24)], 10)
    assert slope == pytest.approx(0.02)
    assert sigma == pytest.approx(0.0, abs=1e-9)


def test_noise_is_no_trend_in_997_of_1000_cases() -> None:
    """Of a steady rate, three standard errors are passed about as often as they should be."""
    draw = random.Random(3)
    passed = 0
    for _ in range(1000):
        slope, sigma = trend([draw.gauss(5.0, 0.7) for _ in range(24)], 10)
        passed += abs(slope) > 3 * sigma
    assert passed <= 20


def test_too_few_bins_tell_no_trend() -> None:
    """Who has watched for 50 s does not know where it goes."""
    assert trend([1.0, 2.0, 3.0, 4.0, 5.0], 10) == (0.0, 0.0)

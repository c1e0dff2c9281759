"""What is kept of the past, and how it is summed up. Bounded memory, O(1) per entry, no clock.

Owns percentiles, spread and trend. Refuses to know what its numbers mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from typing import NamedTuple

SAMPLES_MAX = 1024
"""Of one kind: their mean is known to 3 % where they spread as widely as their mean."""
SECONDS_KEPT = 300
BINS_MIN = 6
"""Fewer tell no trend."""


class Samples:
    """The last values, each with the wall clock at which it was measured."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: deque[tuple[float, float]] = deque(maxlen=SAMPLES_MAX)

    def add(self, at: float, value: float) -> None:
        """Measured then."""
        self._rows.append((at, value))

    def since(self, at: float) -> list[float]:
        """Values measured at or after this; at most the last `SAMPLES_MAX`."""
        return [value for when, value in self._rows if when >= at]

    def all(self) -> list[float]:
        """Those that are kept, however old."""
        return [value for _, value in self._rows]


class Seconds:
    """Counts by second of the last `SECONDS_KEPT`, of what may be told late and taken back."""

    __slots__ = ("_counts", "_of")

    def __init__(self) -> None:
        self._counts = [0] * SECONDS_KEPT
        self._of = [-1] * SECONDS_KEPT

    def add(self, second: int, number: int = 1) -> None:
        """So many more in that second; nothing where it is out of the window."""
        index = second % SECONDS_KEPT
        if self._of[index] == second:
            self._counts[index] += number
        elif self._of[index] < second:
            self._of[index], self._counts[index] = second, number

    def sums(self, first: int, step: int, number: int) -> list[int]:
        """Sums of `number` bins of `step` seconds, the first beginning with second `first`."""
        return [sum([self._at(second) for second in range(at, at + step)]) for at in _starts(first, step, number)]

    def _at(self, second: int) -> int:
        index = second % SECONDS_KEPT
        return self._counts[index] if self._of[index] == second else 0


def binned(by_second: Mapping[int, int], first: int, step: int, number: int) -> list[int]:
    """The same sums of a sparse count; as many steps as it has entries, or the bins have seconds."""
    if len(by_second) > step * number:
        of = by_second.get
        return [sum([of(second, 0) for second in range(at, at + step)]) for at in _starts(first, step, number)]
    sums = [0] * number
    for second, count in by_second.items():
        bin_ = (second - first) // step
        if 0 <= bin_ < number:
            sums[bin_] += count
    return sums


def _starts(first: int, step: int, number: int) -> range:
    return range(first, first + step * number, step)


class Spread(NamedTuple):
    """Of some values: mean, squared coefficient of variation, and the 95th percentile."""

    mean: float
    scv: float
    p95: float


def spread(values: Sequence[float]) -> Spread | None:
    """None of no values; the variance is the population's."""
    if not values:
        return None
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return Spread(mean, variance / (mean * mean) if mean > 0 else 0.0, percentile(values, 0.95) or 0.0)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The least value that so large a share does not exceed (nearest rank); None of no values."""
    if not values:
        return None
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def trend(rates: Sequence[float], step_s: float) -> tuple[float, float]:
    """Slope per second of evenly spaced rates, and its standard error; zeros where they are too few.

    Source: ordinary least squares; the error is sqrt(SSR / (n - 2) / Sxx).
    """
    number = len(rates)
    if number < BINS_MIN:
        return 0.0, 0.0
    middle = (number - 1) / 2
    mean = sum(rates) / number
    sxx = sum((index - middle) ** 2 for index in range(number)) * step_s * step_s
    slope = sum((index - middle) * step_s * rate for index, rate in enumerate(rates)) / sxx
    residuals = (rate - mean - slope * (index - middle) * step_s for index, rate in enumerate(rates))
    return slope, sqrt(sum(residual * residual for residual in residuals) / (number - 2) / sxx)

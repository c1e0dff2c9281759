"""The day's pattern: how many calls arrived at this time of day, so that machines are there in time.

Owns the learned rates. One value per lane, day and five minutes: the busiest minute less what
chance adds to the highest of several. The lower median of the last days is expected: a crowd that came
once is not ordered for on the third day, and a weekend does not undo the week.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil, sqrt
from statistics import median_low

from tasks.invocation import Lane

DAY_S = 86_400.0
BUCKET_S = 300.0
BUCKETS = int(DAY_S / BUCKET_S)
DAYS_KEPT = 5
"""Over a Monday's lower median of five days weekdays decide, and over a Saturday's too: dearer, never late."""
RATE_WINDOW_S = 60.0
"""Over which the sensors count arrivals."""
CHANCE = 1.4
"""Standard deviations by which the highest of some twenty overlapping minutes of a Poisson stream is over the mean."""

Days = tuple[float, ...]
"""Rates of one bucket, per second, of the last days, newest last."""


@dataclass(frozen=True, slots=True)
class Season:
    """What was learned, as a plain value.

    Attributes:
        days: by lane, one entry per bucket of the day.
        opened: wall clock at which the present bucket began; None before the first look.
        peaks: by lane, the highest rate in the present bucket so far.
    """

    days: Mapping[Lane, tuple[Days, ...]] = field(default_factory=dict)
    opened: float | None = None
    peaks: Mapping[Lane, float] = field(default_factory=dict)

    def learn(self, at: float, rates: Mapping[Lane, float]) -> Season:
        """One look: the present bucket remembers its peak; a finished bucket goes to its time of day."""
        opened = at - at % BUCKET_S
        if self.opened == opened:
            peaks = {**self.peaks, **{lane: max(rate, self.peaks.get(lane, 0.0)) for lane, rate in rates.items()}}
            return self if peaks == self.peaks else replace(self, peaks=peaks)
        return Season(self.days if self.opened is None else self._closed(self.opened), opened, dict(rates))

    def ahead(self, lane: Lane, at: float, for_s: float) -> float | None:
        """The highest rate expected from `at` on for so long, per second; None where no day is known."""
        known = self.days.get(lane)
        if known is None:
            return None
        first = int(at // BUCKET_S)
        steps = ceil((at % BUCKET_S + for_s) / BUCKET_S)
        expected = [median_low(days) for step in range(steps) if (days := known[(first + step) % BUCKETS])]
        return max(expected) if expected else None

    def _closed(self, opened: float) -> dict[Lane, tuple[Days, ...]]:
        bucket = int(opened % DAY_S // BUCKET_S)
        days = dict(self.days)
        for lane, peak in self.peaks.items():
            rate = round(max(0.0, peak - CHANCE * sqrt(peak / RATE_WINDOW_S)), 4)
            buckets = list(days.get(lane, ((),) * BUCKETS))
            buckets[bucket] = (*buckets[bucket], rate)[-DAYS_KEPT:]
            days[lane] = tuple(buckets)
        return days

"""The loads that rules are judged on: rates over a day, drawn into arrivals and service times by a seed.

Each trace has two days. The first is what a rule may have learned from, the second is judged: what repeats
(a working day, a job on the hour) is in both, what surprises (a step, a crowd) is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, exp, log, pi, sqrt
from random import Random

DAY_S = 86_400.0
HOUR_S = 3600.0
SERVICE_S = 1.5
SERVICE_SCV = 1.0

Rate = Callable[[float], float]
"""Calls per second at so many seconds of the day."""


@dataclass(frozen=True)
class Trace:
    """One load, and the machines that it meets.

    Attributes:
        length_s: of the day that is simulated, from midnight.
        peak: no rate of either day is over it.
        days: makes the rates of the first and the second day.
        boot_s: median of order to ready; `boot_sigma` is the spread of its logarithm.
        spot_life_s: machines are taken away after so long on average; None: never.
        notice_s: how long before that their provider says so; one in four goes without a word.
    """

    name: str
    length_s: float
    peak: float
    days: Callable[[Random], tuple[Rate, Rate]]
    boot_s: float = 75.0
    boot_sigma: float = 0.15
    spot_life_s: float | None = None
    notice_s: float = 120.0


@dataclass(frozen=True)
class Drawn:
    """A trace and a seed.

    Attributes:
        learned: arrivals of the first day, seconds of that day.
        arrivals: of the second.
        services: seconds, one for each of `arrivals`.
        rate: of the second day; only the clairvoyant looks at it.
    """

    trace: Trace
    seed: int
    learned: list[float]
    arrivals: list[float]
    services: list[float]
    rate: Rate


def draw(trace: Trace, seed: int) -> Drawn:
    """The same for every rule: they differ in what they do and in nothing else."""
    random = Random(f"{trace.name} {seed}")
    first, second = trace.days(random)
    learned = _arrivals(trace, first, random)
    arrivals = _arrivals(trace, second, random)
    sigma = sqrt(log(1.0 + SERVICE_SCV))
    services = [random.lognormvariate(log(SERVICE_S) - sigma * sigma / 2, sigma) for _ in arrivals]
    return Drawn(trace, seed, learned, arrivals, services, second)


def _arrivals(trace: Trace, rate: Rate, random: Random) -> list[float]:
    """A Poisson process by thinning: Lewis and Shedler, 1979."""
    found, at = [], 0.0
    while (at := at + random.expovariate(trace.peak)) < trace.length_s:
        if random.random() * trace.peak < rate(at):
            found.append(at)
    return found


def _same(rate: Rate) -> Callable[[Random], tuple[Rate, Rate]]:
    return lambda _: (rate, rate)


def _wave(low: float, high: float, period_s: float, peak_at_s: float) -> Rate:
    middle, swing = (low + high) / 2, (high - low) / 2
    return lambda at: middle + swing * cos(2 * pi * (at - peak_at_s) / period_s)


def _bursts(random: Random) -> tuple[Rate, Rate]:
    """Twelve calls a second for eight minutes from about four minutes to the hour, not to the second."""

    def day() -> Rate:
        starts = [hour * HOUR_S + 56 * 60 + random.uniform(-30.0, 30.0) for hour in range(12)]
        return lambda at: 12.0 if any(start <= at < start + 480.0 for start in starts) else 1.0

    return day(), day()


def _step(_: Random) -> tuple[Rate, Rate]:
    """Nothing of it yesterday."""
    return (lambda _: 0.5), (lambda at: 14.0 if 1.5 * HOUR_S <= at < 4.5 * HOUR_S else 0.5)


def _flash(random: Random) -> tuple[Rate, Rate]:
    """A crowd within a minute, halved every ten; yesterday there was one too, at another time."""

    def day() -> Rate:
        start = random.uniform(0.5 * HOUR_S, 4.5 * HOUR_S)

        def rate(at: float) -> float:
            since = at - start
            if since < 0.0:
                return 1.0
            return 1.0 + 17.0 * (since / 60.0 if since < 60.0 else exp(-log(2.0) * (since - 60.0) / 600.0))

        return rate

    return day(), day()


TRACES = (
    Trace("diurnal", 24 * HOUR_S, 8.0, _same(_wave(1.0, 8.0, DAY_S, 14 * HOUR_S))),
    Trace("hourly bursts", 12 * HOUR_S, 12.0, _bursts),
    Trace("step", 6 * HOUR_S, 14.0, _step),
    Trace("steady", 6 * HOUR_S, 2.4, _same(lambda _: 2.4)),
    Trace("flash crowd", 6 * HOUR_S, 18.0, _flash),
    Trace(
        "slow boots", 6 * HOUR_S, 8.0, _same(_wave(1.0, 8.0, 3 * HOUR_S, 1.5 * HOUR_S)), boot_s=300.0, boot_sigma=0.3
    ),
    Trace("spot loss", 6 * HOUR_S, 8.0, _same(_wave(1.0, 8.0, 6 * HOUR_S, 3 * HOUR_S)), spot_life_s=HOUR_S),
)

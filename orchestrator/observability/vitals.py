"""What this process knows of itself and of what it stands on: late turns of its event loop, ledger, broker, loops.

Owns two small tasks that run beside the doors. Refuses to decide anything: alerts do.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import structlog
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from tasks.clock import Clock
from tasks.errors import FleetError

log = structlog.get_logger("mcpfleet.vitals")
LAG_EVERY_S = 0.25
LAGS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LOOK_EVERY_S = 10.0
ANSWERS_WITHIN_S = 5.0


class Pinged(Protocol):
    """Redis."""

    def ping(self) -> Awaitable[object]: ...


class Vitals:
    """Looks while this process serves."""

    def __init__(
        self, registry: CollectorRegistry, *, dead_count: Callable[[], Awaitable[int]], redis: Pinged, clock: Clock
    ) -> None:
        self._dead_count, self._redis, self._clock = dead_count, redis, clock
        self._lag = Histogram(
            "mcpfleet_event_loop_lag_seconds",
            "By how much a turn of the event loop that was due came late, four times a second",
            buckets=LAGS_S,
            registry=registry,
        )
        self._ledger = Gauge("mcpfleet_ledger_up", "1: the ledger answered the last look", registry=registry)
        self._broker = Gauge("mcpfleet_broker_up", "1: Redis answered the last look", registry=registry)
        self._dead = Gauge("mcpfleet_dead_letters", "Dead letters that nobody replayed or discarded", registry=registry)
        for unknown in (self._ledger, self._broker, self._dead):
            unknown.set(math.nan)  # a scrape before the first look: no store is away for it, and no letter came since

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self._feel(), self._watch())

    async def look(self) -> None:
        """Once: whether both stores answer, and how many dead letters there are."""
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                self._dead.set(await self._dead_count())
            self._ledger.set(1)
        except (FleetError, TimeoutError):
            self._ledger.set(0)
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                await self._redis.ping()
            self._broker.set(1)
        except (RedisError, OSError, TimeoutError):
            self._broker.set(0)

    async def _feel(self) -> None:
        while True:
            due_s = self._clock.mono_s() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._lag.observe(max(0.0, self._clock.mono_s() - due_s))

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("vitals_failed")
            await asyncio.sleep(LOOK_EVERY_S)


class Round(NamedTuple):
    """One of the leader's loops."""

    name: str
    period_s: float
    age_s: float
    """Since its last round ended."""


class StandingCollector(Collector):
    """Read when scraped: whether this process leads, how its loops go, and what ends soonest."""

    def __init__(
        self,
        *,
        leads: Callable[[], bool],
        rounds: Callable[[], Iterable[Round]],
        expiries: Callable[[], Iterable[tuple[str, float]]],
    ) -> None:
        self._leads, self._rounds, self._expiries = leads, rounds, expiries

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One scrape."""
        yield GaugeMetricFamily("mcpfleet_leading", "1: this process leads, and can prove it", value=self._leads())
        age = GaugeMetricFamily(
            "mcpfleet_loop_age_seconds", "Since the last round of one of the leader's loops ended", labels=["loop"]
        )
        period = GaugeMetricFamily("mcpfleet_loop_period_seconds", "Its pause between two rounds", labels=["loop"])
        for one in self._rounds():
            age.add_metric([one.name], one.age_s)
            period.add_metric([one.name], one.period_s)
        ends = GaugeMetricFamily(
            "mcpfleet_expiry_timestamp_seconds",
            "When the first of its kind ends, seconds since the epoch; of those that are good for two weeks or more",
            labels=["kind"],
        )
        soonest: dict[str, float] = {}
        for kind, at in self._expiries():
            soonest[kind] = min(at, soonest.get(kind, at))
        for kind, at in sorted(soonest.items()):
            ends.add_metric([kind], at)
        yield from (age, period, ends)

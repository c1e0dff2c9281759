"""What became of spans and log lines, as metrics: read from the queues when scraped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from tasks.otlp import Loss


class Exported(Protocol):
    """Who sends them (`tasks/otlp.py`)."""

    def losses(self) -> Iterable[Loss]: ...
    def sent(self) -> Mapping[str, int]: ...


class OtlpCollector(Collector):
    """Registered where a collector is named; without one there are no such metrics."""

    def __init__(self, exported: Exported) -> None:
        self._exported = exported

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One scrape."""
        sent = CounterMetricFamily(
            "mcpfleet_telemetry_sent", "Spans and log lines that the OTLP collector took", labels=["signal"]
        )
        dropped = CounterMetricFamily(
            "mcpfleet_telemetry_dropped",
            "Spans and log lines that the OTLP collector did not get, by why",
            labels=["signal", "why"],
        )
        for signal, count in self._exported.sent().items():
            sent.add_metric([signal], count)
        for signal, why, number in self._exported.losses():
            dropped.add_metric([signal, why], number)
        yield from (sent, dropped)

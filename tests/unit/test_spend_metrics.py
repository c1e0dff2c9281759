"""Counters of money: what is new, once, under a bounded number of names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from orchestrator.happenings import ModelsUsed
from orchestrator.observability.calls import LiveCalls
from orchestrator.observability.metrics import Metrics
from orchestrator.observability.spend import MODELS_MAX
from tasks.spend import Spend
from tasks.testing.clock import FakeClock


def test_tokens_and_cost_are_counted_and_an_unknown_price_is_not_nothing() -> None:
    """By kind; requests without a price have a counter of their own and no cost series at all."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, LiveCalls(FakeClock()))
    for _ in range(2):
        metrics.hear(ModelsUsed("i", 1, (Spend("claude", 1, 10, 5, 3, 2, 0.25), Spend("glm", 2, 7, 1))))
    get = registry.get_sample_value
    kinds = ("input", "output", "cache_read", "cache_write")
    tokens = [get("mcpfleet_agent_tokens_total", {"model": "claude", "kind": kind}) for kind in kinds]
    assert tokens == [20, 10, 6, 4]
    assert get("mcpfleet_agent_cost_usd_total", {"model": "claude"}) == 0.5
    assert get("mcpfleet_agent_cost_usd_total", {"model": "glm"}) is None
    assert get("mcpfleet_agent_requests_total", {"model": "glm", "priced": "no"}) == 4


def test_no_agent_fills_the_scrape_with_names() -> None:
    """The first so many models have a series, the rest one together; nothing is left out of the sum."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, LiveCalls(FakeClock()))
    for number in range(MODELS_MAX + 20):
        metrics.hear(ModelsUsed("i", 1, (Spend(f"m-{number}", 1, 1),)))
    samples = [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "mcpfleet_agent_requests_total"
    ]
    assert len(samples) == MODELS_MAX + 1
    assert sum(sample.value for sample in samples) == MODELS_MAX + 20

"""Prometheus counters of what agents spend on models. Each is incremented here and nowhere else.

A project is no label: callers name projects, and the report (`GET /v1/costs`) has them. Models are, the
first so many: an agent may ask for any name.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from tasks.spend import OTHERS, Spend, Spent

MODELS_MAX = 50
"""Label values; what comes later counts under `others`."""


class SpendCounters:
    """Told what is new of each attempt, once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: set[str] = set()
        self._tokens = Counter(
            "mcpfleet_agent_tokens_total", "Tokens that agents used", ["model", "kind"], registry=registry
        )
        self._cost = Counter(
            "mcpfleet_agent_cost_usd_total", "US dollars, of requests with a price", ["model"], registry=registry
        )
        self._requests = Counter(
            "mcpfleet_agent_requests_total", "Requests to models", ["model", "priced"], registry=registry
        )

    def count(self, spent: Spent) -> None:
        """Add it."""
        for one in spent:
            self._count(one, self._label(one.model))

    def _count(self, one: Spend, model: str) -> None:
        kinds = {
            "input": one.input,
            "output": one.output,
            "cache_read": one.cache_read,
            "cache_write": one.cache_write,
        }
        for kind, tokens in kinds.items():
            if tokens:
                self._tokens.labels(model, kind).inc(tokens)
        self._requests.labels(model, "no" if one.cost_usd is None else "yes").inc(one.requests)
        if one.cost_usd is not None:
            self._cost.labels(model).inc(one.cost_usd)

    def _label(self, model: str) -> str:
        if model not in self._models and len(self._models) >= MODELS_MAX:
            return OTHERS
        self._models.add(model)
        return model

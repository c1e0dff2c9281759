"""/health, /metrics and the OpenAPI document."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from pydantic import RootModel

from orchestrator.api.operation import Answer, Ask, Header, Operation
from orchestrator.api.reply import Reply, model
from orchestrator.api.settings import ApiSettings
from tasks.scopes import Scope
from tasks.wire import HealthView, NodeView
from tasks.wire_objectives import TargetsView

ACCEPT = Header("accept", "application/openmetrics-text: with exemplars; else the older text format", 1000)


class TargetList(RootModel[list[TargetsView]]):
    """A bare list, as Prometheus wants it."""


class Nodes(Protocol):
    """Who is joined."""

    def nodes(self) -> list[NodeView]: ...


class _Read(Collector):
    """Families that were read already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        """Those."""
        return self._families


class Service:
    """What is not about calls."""

    def __init__(self, registry: CollectorRegistry, settings: ApiSettings, fleet: Nodes) -> None:
        self._registry, self._settings, self._fleet = registry, settings, fleet
        self.document: bytes = b"{}"
        """The OpenAPI document; set once every operation is known."""

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        readers = None if self._settings.is_metrics_open else Scope.METRICS_READ
        return (
            Operation("GET", "/health", "health", None, "The orchestrator answers", self.health,
                      {200: Answer("it does", HealthView)}, tag="service"),
            Operation("GET", "/metrics", "metrics", readers, "Prometheus metrics", self.metrics,
                      {200: Answer("text exposition", media_type="text/plain")}, headers=(ACCEPT,), tag="service"),
            Operation("GET", "/v1/targets", "targets", readers, "Nodes' metrics, for Prometheus's http_sd_configs",
                      self.targets, {200: Answer("a group for each node", TargetList)}, tag="service"),
            Operation("GET", "/openapi.json", "openapi", Scope.TOOLS_READ, "This API, as OpenAPI 3.1", self.openapi,
                      {200: Answer("the document")}, tag="service"),
        )  # fmt: skip

    async def health(self, _ask: Ask) -> Reply:
        """GET /health."""
        return model(HealthView(status="ok", version=self._settings.version))

    async def metrics(self, ask: Ask) -> Reply:
        """GET /metrics. Read on the loop, whose state it is; written as text beside it, which takes longer."""
        encode, media_type = choose_encoder(ask.header(b"accept") or "")
        text = await asyncio.to_thread(encode, _Read(self._registry.collect()))
        return Reply(text, media_type=media_type.encode())

    async def targets(self, _ask: Ask) -> Reply:
        """GET /v1/targets. Source: Prometheus, HTTP service discovery: a list of groups, and status 200."""
        return model(TargetList([one for node in self._fleet.nodes() if (one := _target(node)) is not None]))

    async def openapi(self, _ask: Ask) -> Reply:
        """GET /openapi.json."""
        return Reply(self.document)


def _target(node: NodeView) -> TargetsView | None:
    """Where its /metrics answers; None of a node that did not say."""
    url = urlsplit(node.url)
    if not url.netloc:
        return None
    return TargetsView(targets=[url.netloc], labels={"__scheme__": url.scheme, "node": node.name, "pool": node.pool})

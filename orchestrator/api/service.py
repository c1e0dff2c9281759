"""/health, /metrics and the OpenAPI document."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.reply import Reply, model
from orchestrator.api.settings import ApiSettings
from tasks.scopes import Scope
from tasks.wire import HealthView


class Service:
    """What is not about calls."""

    def __init__(self, registry: CollectorRegistry, settings: ApiSettings) -> None:
        self._registry, self._settings = registry, settings
        self.document: bytes = b"{}"
        """The OpenAPI document; set once every operation is known."""

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        readers = None if self._settings.is_metrics_open else Scope.METRICS_READ
        return (
            Operation("GET", "/health", "health", None, "The orchestrator answers", self.health,
                      {200: Answer("it does", HealthView)}, tag="service"),
            Operation("GET", "/metrics", "metrics", readers, "Prometheus metrics", self.metrics,
                      {200: Answer("text exposition", media_type="text/plain")}, tag="service"),
            Operation("GET", "/openapi.json", "openapi", Scope.TOOLS_READ, "This API, as OpenAPI 3.1", self.openapi,
                      {200: Answer("the document")}, tag="service"),
        )  # fmt: skip

    async def health(self, _ask: Ask) -> Reply:
        """GET /health."""
        return model(HealthView(status="ok", version=self._settings.version))

    async def metrics(self, _ask: Ask) -> Reply:
        """GET /metrics."""
        return Reply(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST.encode())

    async def openapi(self, _ask: Ask) -> Reply:
        """GET /openapi.json."""
        return Reply(self.document)

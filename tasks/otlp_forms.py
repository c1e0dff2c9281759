"""Our spans and log lines as OpenTelemetry's SDK wants them. Imported only where they are sent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tasks.tracing import Span

SCOPE = "mcpfleet"
_NS = 1_000_000_000
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)
_SEVERITY = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
_IN_RECORD = frozenset({"timestamp", "level", "event", "trace_id", "span_id", "service"})
"""Fields of a line that a log record has places for."""
_CONVENTIONS = {"exception": "exception.stacktrace", "pid": "process.pid"}
"""Source: OpenTelemetry, semantic conventions, general attributes."""


class Target(Protocol):
    """As whom."""

    @property
    def service(self) -> str: ...
    @property
    def instance(self) -> str: ...
    @property
    def version(self) -> str: ...


class _Process(Resource):
    """One object for all spans of a process. The SDK's own hash writes JSON, once per span (10 µs)."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class Forms:
    """Of one process."""

    def __init__(self, target: Target) -> None:
        self._resource = _Process(
            {
                "service.name": target.service,
                "service.namespace": "mcpfleet",
                "service.instance.id": target.instance,
                "service.version": target.version,
                "telemetry.sdk.language": "python",
                "telemetry.sdk.name": "opentelemetry",
            }
        )
        self._scope = InstrumentationScope(SCOPE, target.version)

    def span(self, span: Span) -> ReadableSpan:
        """One span."""
        trace_id = int(span.trace_id, 16)
        parent = None
        if span.parent_id is not None:
            parent = SpanContext(trace_id, int(span.parent_id, 16), is_remote=True, trace_flags=_SAMPLED)
        start_ns = round(span.start_s * _NS)
        attributes = {name: value for name, value in span.attributes.items() if value is not None}
        if span.error is not None:
            attributes["error.type"] = span.error
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace_id, int(span.span_id, 16), is_remote=False, trace_flags=_SAMPLED),
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=SpanKind[span.kind],
            status=_UNSET if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=start_ns,
            end_time=max(start_ns, round(span.end_s * _NS)),
            instrumentation_scope=self._scope,
        )

    def line(self, line: Mapping[str, Any]) -> ReadableLogRecord:
        """One log line; its fields are attributes, its event is the body and, where it is ours, the event's name."""
        level, event = str(line.get("level", "info")), str(line.get("event", ""))
        is_ours = str(line.get("logger", "")).startswith(f"{SCOPE}.")
        record = LogRecord(
            timestamp=_ns_of(line.get("timestamp")),
            observed_timestamp=time.time_ns(),
            severity_text=level,
            severity_number=_SEVERITY.get(level, SeverityNumber.INFO),
            body=event,
            attributes={
                _CONVENTIONS.get(name, name): _plain(value) for name, value in line.items() if _stays(name, value)
            },
            event_name=event if is_ours else None,
        )
        record.trace_id, record.span_id = int(line.get("trace_id", "0"), 16), int(line.get("span_id", "0"), 16)
        record.trace_flags = _SAMPLED
        return ReadableLogRecord(log_record=record, resource=self._resource, instrumentation_scope=self._scope)


def _stays(name: str, value: object) -> bool:
    return name not in _IN_RECORD and value is not None


def _plain(value: object) -> Any:  # noqa: ANN401 - what an attribute may be
    if isinstance(value, str | bool | float | list | dict):
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return value
    return str(value)


def _ns_of(timestamp: object) -> int | None:
    try:
        return round(datetime.fromisoformat(str(timestamp)).timestamp() * 1e6) * 1000
    except ValueError:
        return None

"""A real OTLP/HTTP receiver on loopback: decodes what it gets as a collector would, and can misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

HANG_MAX_S = 120.0


@dataclass(frozen=True, slots=True)
class SeenSpan:
    """One span as it arrived."""

    service: str
    instance: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    is_error: bool


@dataclass(frozen=True, slots=True)
class SeenLine:
    """One log record as it arrived."""

    service: str
    event: str
    severity: int
    trace_id: str
    attributes: dict[str, Any]


@dataclass(slots=True)
class Collector:
    """What arrived, and how it answers."""

    url: str = ""
    status: int = 200
    hangs: bool = False
    requests: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Of the newest request."""
    spans: list[SeenSpan] = field(default_factory=list)
    lines: list[SeenLine] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def trace(self, trace_id: str) -> list[SeenSpan]:
        """The spans of one trace, in the order in which they began."""
        return sorted((one for one in list(self.spans) if one.trace_id == trace_id), key=lambda one: one.start_ns)

    def take(self, path: str, body: bytes) -> None:
        """One request's body."""
        if path == "/v1/traces":
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        elif path == "/v1/logs":
            self.lines += _lines(ExportLogsServiceRequest.FromString(body))


@contextmanager
def collector(status: int = 200, *, hangs: bool = False) -> Iterator[Collector]:
    """A collector that answers `status`, or does not answer at all, while in here."""
    seen = Collector(status=status, hangs=hangs)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """One batch."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.requests += 1
            seen.headers = {name.lower(): value for name, value in self.headers.items()}
            if seen.hangs:
                seen.ending.wait(HANG_MAX_S)
                return
            if seen.status < 400:  # noqa: PLR2004 - RFC 9110, 15.5
                seen.take(self.path, body)
            self.send_response(seen.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    seen.url = f"http://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield seen
    finally:
        seen.ending.set()
        server.shutdown()
        server.server_close()
        serving.join()


def _spans(request: ExportTraceServiceRequest) -> Iterator[SeenSpan]:
    for one in request.resource_spans:
        about = _plain(one.resource.attributes)
        for scope in one.scope_spans:
            for span in scope.spans:
                yield SeenSpan(
                    about["service.name"],
                    about["service.instance.id"],
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _plain(span.attributes),
                    span.status.code == span.status.STATUS_CODE_ERROR,
                )


def _lines(request: ExportLogsServiceRequest) -> Iterator[SeenLine]:
    for one in request.resource_logs:
        service = _plain(one.resource.attributes)["service.name"]
        for scope in one.scope_logs:
            for line in scope.log_records:
                yield SeenLine(
                    service,
                    line.body.string_value,
                    line.severity_number,
                    line.trace_id.hex(),
                    _plain(line.attributes),
                )


def _plain(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}

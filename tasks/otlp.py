"""Sends finished spans, and log lines where that is wanted, to an OpenTelemetry collector by OTLP over HTTP.

Owns two bounded queues and the thread that empties them. A collector that is away, slow or refuses costs spans,
never a call: what does not fit or is not taken is dropped, counted, and said once a minute. OpenTelemetry's SDK is
imported when this is opened, and only then; its exporter encodes, sends and retries. Its own batch processor is not
used: it tells nobody how many it loses.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from tasks.clock import Clock, SystemClock
from tasks.errors import SettingsError
from tasks.tracing import Span

log = structlog.get_logger("mcpfleet.telemetry")
QUEUE_MAX = 8192
"""Spans, and as many log lines; about 1 KB each."""
BATCH_MAX = 512
FLUSH_EVERY_S = 1.0
EXPORT_S = 5.0
"""One batch, its retries included."""
SAY_EVERY_S = 60.0
T = TypeVar("T")
Export = Callable[[Sequence[T]], bool]


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """Where to, and as whom.

    Attributes:
        endpoint: base URL; `/v1/traces` and `/v1/logs` are added.
        service: `service.name`.
        instance: `service.instance.id`, e.g. the node's name.
        version: of mcpfleet.
        ratio: share of traces kept.
        headers: a file of headers that are sent with each request, credentials for example.
    """

    endpoint: str
    service: str
    instance: str
    version: str
    ratio: float = 1.0
    headers: Path | None = None


class Bounded(Generic[T]):
    """What waits to be sent. The newest are refused when it is full: what waits is sent in order."""

    def __init__(self, export: Export[T]) -> None:
        self._export = export
        self._waiting: deque[T] = deque()
        self.sent = 0
        self.dropped = 0
        """Did not fit, or was not taken."""

    def put(self, one: T) -> None:
        """Any thread."""
        if len(self._waiting) >= QUEUE_MAX:
            self.dropped += 1
            return
        self._waiting.append(one)

    def flush(self, is_ending: Callable[[], bool] = lambda: False) -> None:
        """Send all that waits; a batch that is not taken is lost, not tried for ever."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
            if self._export(batch):
                self.sent += len(batch)
                continue
            self.dropped += len(batch)
            if is_ending():
                return


class Otlp:
    """Satisfies `Spans`, and is a sink of log lines."""

    def __init__(
        self, spans: Export[Span], lines: Export[Mapping[str, Any]], *, ratio: float, clock: Clock | None = None
    ) -> None:
        self.ratio = ratio
        self.spans, self.lines = Bounded(spans), Bounded(lines)
        self.close_exporters: Callable[[], None] = lambda: None
        self._clock = clock or SystemClock()
        self._said, self._said_s = 0, -SAY_EVERY_S
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mcpfleet-otlp", daemon=True)

    @property
    def dropped(self) -> int:
        """Spans and lines that no collector got, since the start."""
        return self.spans.dropped + self.lines.dropped

    def put(self, span: Span) -> None:
        """One finished span."""
        self.spans.put(span)

    def lost(self, count: int) -> None:
        """Spans that could not be made."""
        self.spans.dropped += count

    def line(self, event: Mapping[str, Any]) -> None:
        """One finished log line."""
        if not str(event.get("logger", "")).startswith(("opentelemetry", "urllib3", "requests")):
            self.lines.put(dict(event))

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self, timeout_s: float = 3.0) -> None:
        """Send what waits, for so long at most."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self.close_exporters()

    def _run(self) -> None:
        while not self._ending.wait(FLUSH_EVERY_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        try:
            self.spans.flush(self._ending.is_set)
            self.lines.flush(self._ending.is_set)
        except Exception:
            log.exception("telemetry_failed")
        self._say()

    def _say(self) -> None:
        new, now_s = self.dropped - self._said, self._clock.mono_s()
        if new and now_s - self._said_s >= SAY_EVERY_S:
            self._said, self._said_s = self.dropped, now_s
            log.warning("telemetry_dropped", spans=self.spans.dropped, lines=self.lines.dropped, new=new)


def begin_otlp(target: OtlpTarget) -> Otlp | None:
    """Begin to send; None, and nothing is imported, where no endpoint is named.

    Raises:
        SettingsError: the file of headers cannot be used, or the SDK is not installed.
    """
    if not target.endpoint:
        return None
    try:
        otlp = open_otlp(target)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"an OTLP endpoint is set, {target.endpoint}, and {error.name} is not installed; "
            "install mcpfleet with its extra `otlp`, or unset the endpoint"
        ) from error
    otlp.start()
    return otlp


def open_otlp(target: OtlpTarget) -> Otlp:
    """Make the exporters; `start` begins to send.

    Raises:
        SettingsError: the file of headers cannot be used.
    """
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs.export import LogRecordExportResult
    from opentelemetry.sdk.trace.export import SpanExportResult

    from tasks.otlp_forms import Forms

    base, headers = target.endpoint.rstrip("/"), read_headers(target.headers)
    spans = OTLPSpanExporter(endpoint=f"{base}/v1/traces", headers=headers, timeout=EXPORT_S)
    lines = OTLPLogExporter(endpoint=f"{base}/v1/logs", headers=headers, timeout=EXPORT_S)
    forms = Forms(target)

    def send_spans(batch: Sequence[Span]) -> bool:
        return spans.export([forms.span(one) for one in batch]) is SpanExportResult.SUCCESS

    def send_lines(batch: Sequence[Mapping[str, Any]]) -> bool:
        return lines.export([forms.line(one) for one in batch]) is LogRecordExportResult.SUCCESS

    opened = Otlp(send_spans, send_lines, ratio=target.ratio)

    def close() -> None:
        spans.shutdown()  # type: ignore[no-untyped-call]
        lines.shutdown()  # type: ignore[no-untyped-call]

    opened.close_exporters = close
    return opened


def read_headers(file: Path | None) -> dict[str, str]:
    """Headers from a secret file: `Name: value` on each line.

    Raises:
        SettingsError: it cannot be read, or a line is none.
    """
    if file is None:
        return {}
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise SettingsError(f"the file of OTLP headers, {file}, cannot be read ({error})") from error
    pairs = [line.partition(":") for line in lines]
    if wrong := next((number for number, pair in enumerate(pairs, 1) if not pair[1]), None):
        raise SettingsError(f"line {wrong} of the OTLP headers in {file} is not `Name: value`")
    return {name.strip(): value.strip() for name, _, value in pairs}

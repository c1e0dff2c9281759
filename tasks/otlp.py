"""Sends finished spans, and log lines where that is wanted, to an OpenTelemetry collector by OTLP over HTTP.

Owns the thread that does it. A collector that is away, slow or refuses costs spans, never a call: what does not fit or
is not taken is dropped, counted, and said once a minute. Nothing of OpenTelemetry is imported (`tasks/otlp_wire.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_letters, digits
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import structlog

from tasks.clock import Clock, SystemClock
from tasks.errors import SettingsError
from tasks.otlp_http import PARTLY, REDIRECTED, REFUSED, UNREACHABLE, Answer, Sender
from tasks.otlp_queue import ENDING, FULL, UNMADE, Bounded, Send
from tasks.otlp_wire import Envelope, line_entry, span_entry
from tasks.tracing import Span

log = structlog.get_logger("mcpfleet.telemetry")
SPANS_MAX = 8192
"""Waiting; about 1 KB each."""
LINES_MAX_BYTES = 8_388_608
LINE_BYTES = 1024
"""What a short line is counted as, so that no more of them wait than spans."""
FLUSH_EVERY_S = 5.0
"""Or as soon as a queue is half full: a request costs as much as a hundred spans. Source: OpenTelemetry,
OTEL_BSP_SCHEDULE_DELAY."""
SAY_EVERY_S = 60.0
CAUSES = (ENDING, FULL, PARTLY, REDIRECTED, REFUSED, UNMADE, UNREACHABLE)
_HEADER_NAME = frozenset(ascii_letters + digits + "!#$%&'*+-.^_`|~")
"""Source: RFC 9110, 5.6.2, token."""


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
        ca_file: certificates that the collector's is checked against; None: the usual ones.
        is_gzipped: requests are compressed.
    """

    endpoint: str
    service: str
    instance: str
    version: str
    ratio: float = 1.0
    headers: Path | None = None
    ca_file: Path | None = None
    is_gzipped: bool = False


class Loss(NamedTuple):
    """Spans or lines that no collector got."""

    signal: str
    """`spans` or `lines`."""
    why: str
    number: int


class Otlp:
    """Satisfies `Spans`, and is a sink of log lines."""

    def __init__(
        self,
        spans: Send,
        lines: Send,
        *,
        ratio: float,
        clock: Clock | None = None,
        ending: threading.Event | None = None,
    ) -> None:
        """`ending` is set by `close`: nobody waits for another try of a batch then."""
        self.ratio = ratio
        self._wake, self._ending = threading.Event(), ending or threading.Event()
        self.spans = Bounded(spans, most=SPANS_MAX, wake=self._wake.set)
        self.lines = Bounded(lines, most=LINES_MAX_BYTES, wake=self._wake.set)
        self.close_senders: Callable[[], None] = lambda: None
        self._clock = clock or SystemClock()
        self._said, self._said_s = 0, -SAY_EVERY_S
        self._thread = threading.Thread(target=self._run, name="mcpfleet-otlp", daemon=True)

    @property
    def dropped(self) -> int:
        """Spans and lines that no collector got, since the start."""
        return self.spans.dropped + self.lines.dropped

    def losses(self) -> Iterator[Loss]:
        """The same, by what and why; causes of which there was none too, so that their first loss is an increase."""
        for signal, queue in (("spans", self.spans), ("lines", self.lines)):
            for why, count in sorted((dict.fromkeys(CAUSES, 0) | dict(queue.lost)).items()):
                yield Loss(signal, why, count)

    def sent(self) -> dict[str, int]:
        """What a collector took, by what it is."""
        return {"spans": self.spans.sent, "lines": self.lines.sent}

    def put(self, span: Span) -> None:
        """One finished span."""
        self.spans.put(partial(_entries, (span,)))

    def put_later(self, count: int, make: Callable[[], Iterable[Span]]) -> None:
        """So many, made in the thread that sends."""
        self.spans.put(partial(_made, make), count, count)

    def lost(self, count: int) -> None:
        """Spans that could not be made."""
        self.spans.drop(count, UNMADE)

    def line(self, event: Mapping[str, Any], size: int) -> None:
        """One finished log line, of `size` characters."""
        self.lines.put(partial(_line, dict(event)), weight=max(LINE_BYTES, size))

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self, timeout_s: float = 3.0) -> None:
        """Send what waits, for so long at most; the rest is counted, and said."""
        self._ending.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self.spans.abandon()
        self.lines.abandon()
        self._say(is_last=True)
        if not self._thread.is_alive():
            self.close_senders()

    def _run(self) -> None:
        due_s = self._clock.mono_s() + FLUSH_EVERY_S
        while not self._ending.is_set():
            self._wake.wait(max(0.0, due_s - self._clock.mono_s()))
            self._wake.clear()
            self.spans.make()
            self.lines.make()
            if self._clock.mono_s() >= due_s or self.spans.is_half_full or self.lines.is_half_full:
                self._flush()
                due_s = self._clock.mono_s() + FLUSH_EVERY_S
        self._flush()

    def _flush(self) -> None:
        try:
            self.spans.flush(self._ending.is_set)
            self.lines.flush(self._ending.is_set)
        except Exception:
            log.exception("telemetry_failed")
        self._say()

    def _say(self, *, is_last: bool = False) -> None:
        new, now_s = self.dropped - self._said, self._clock.mono_s()
        if new and (is_last or now_s - self._said_s >= SAY_EVERY_S):
            self._said, self._said_s = self.dropped, now_s
            why = sorted({loss.why for loss in self.losses() if loss.number})
            detail = self.spans.detail or self.lines.detail
            log.warning(
                "telemetry_dropped",
                spans=self.spans.dropped,
                lines=self.lines.dropped,
                new=new,
                why=why,
                detail=detail or None,
            )


def begin_otlp(target: OtlpTarget) -> Otlp | None:
    """Begin to send; None where no endpoint is named.

    Raises:
        SettingsError: the endpoint, the file of headers or the certificates cannot be used.
    """
    if not target.endpoint:
        return None
    otlp = open_otlp(target)
    otlp.start()
    return otlp


def open_otlp(target: OtlpTarget) -> Otlp:
    """Make the senders; `start` begins to send.

    Raises:
        SettingsError: the endpoint, the file of headers or the certificates cannot be used.
    """
    base, headers = base_url(target.endpoint), read_headers(target.headers)
    envelope, senders, ending = Envelope(target), list[Sender](), threading.Event()

    def sender(path: str) -> Send:
        def send(entries: Sequence[bytes], count: int) -> Answer:
            return made.send(envelope.request(entries), count)

        made = Sender(
            base + path,
            headers,
            ca_file=target.ca_file,
            is_gzipped=target.is_gzipped,
            wait=ending.wait,
        )
        senders.append(made)
        return send

    otlp = Otlp(sender("/v1/traces"), sender("/v1/logs"), ratio=target.ratio, ending=ending)

    def close() -> None:
        for one in senders:
            one.close()

    otlp.close_senders = close
    return otlp


def base_url(endpoint: str) -> str:
    """Without the last slash.

    Raises:
        SettingsError: it is no address of a collector. What it holds is not repeated: it may be a secret.
    """
    try:
        parts = urlsplit(endpoint)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingsError(
            "the OTLP endpoint is to be a base URL like https://collector.example:4318, without user, password, query "
            "or fragment; a key goes into the file of headers"
        )
    return endpoint.rstrip("/")


def read_headers(file: Path | None) -> dict[str, str]:
    """Headers from a secret file: `Name: value` on each line.

    Raises:
        SettingsError: it cannot be read, or a line is none. What it holds is not repeated.
    """
    if file is None:
        return {}
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise SettingsError(f"the file of OTLP headers, {file}, cannot be read ({type(error).__name__})") from error
    headers = {}
    for number, line in enumerate(lines, 1):
        name, sign, value = (part.strip() for part in line.partition(":"))
        if not line.strip():
            continue
        if not sign or not name or not set(name) <= _HEADER_NAME or not (value.isascii() and value.isprintable()):
            raise SettingsError(f"line {number} of the OTLP headers in {file} is not `Name: value`")
        headers[name] = value
    return headers


def _entries(spans: Iterable[Span]) -> Iterable[bytes]:
    return map(span_entry, spans)


def _made(make: Callable[[], Iterable[Span]]) -> Iterable[bytes]:
    return map(span_entry, make())


def _line(event: Mapping[str, Any]) -> Iterable[bytes]:
    return (line_entry(event),)

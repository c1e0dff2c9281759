"""Our spans and log lines as OTLP has them: protobuf, written by hand.

The classes that protobuf generates take 5 µs a span, OpenTelemetry's SDK 20, this 2: a call has five spans and is
to cost little more with them. Fields and their numbers are fixed for good; a test holds what is written here to the
generated classes. Owns the form. Refuses to send: `tasks/otlp_http.py` does. Source: opentelemetry-proto 1.x, trace,
logs, common and resource; protobuf, encoding.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from tasks.tracing import Span

SCOPE = "mcpfleet"
TEXT_MAX = 1024
"""Characters of a span's name or attribute: tools and projects are named by others."""
LINE_TEXT_MAX = 32_768
"""Characters of a field of a log record: a traceback."""
DEPTH_MAX = 16
_NS = 1_000_000_000
_TRACE_BYTES, _SPAN_BYTES = 16, 8
_CACHED_MAX = 128
"""Longer texts are not kept for the next span."""
_ONCE = frozenset({"mcpfleet.invocation_id", "mcpfleet.replay_of", "mcpfleet.parent"})
"""Attributes whose values do not come again."""

# Keys are (field number << 3 | type); 0: varint, 1: 64 bits, 2: length first, 5: 32 bits.
_ENTRY = b"\x12"
"""`ScopeSpans.spans`, `ScopeLogs.log_records`."""
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_NAME, _KIND, _STATUS = b"\x2a", b"\x30", b"\x7a"
_TIMES, _DOUBLE_OF = struct.Struct("<BQBQ").pack, struct.Struct("<d").pack
_FLAGS = struct.pack("<BBI", 0x85, 0x01, 1)
"""Sampled. Source: W3C Trace Context, trace-flags."""
_SPAN_ATTRIBUTE, _LINE_ATTRIBUTE = b"\x4a", b"\x32"
_STRING, _BOOL, _INT, _DOUBLE, _ARRAY, _MAP = b"\x0a", b"\x10", b"\x18", b"\x21", b"\x2a", b"\x32"
_KINDS = {"INTERNAL": b"\x01", "SERVER": b"\x02", "CLIENT": b"\x03", "PRODUCER": b"\x04", "CONSUMER": b"\x05"}
_LINE_TIME, _SEVERITY, _LEVEL, _BODY, _OBSERVED = b"\x09", b"\x10", b"\x1a", b"\x2a", b"\x59"
_LINE_FLAGS, _LINE_TRACE, _LINE_SPAN, _EVENT = struct.pack("<BI", 0x45, 1), b"\x4a\x10", b"\x52\x08", b"\x62"
_SEVERITIES = {"debug": b"\x05", "info": b"\x09", "warning": b"\x0d", "error": b"\x11", "critical": b"\x15"}
"""Source: OpenTelemetry, logs data model, severity numbers."""
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


class Envelope:
    """What is the same in all requests of a process. Spans and log records differ in nothing but the path."""

    def __init__(self, target: Target) -> None:
        about = {
            "service.name": target.service,
            "service.namespace": SCOPE,
            "service.instance.id": target.instance,
            "service.version": target.version,
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": SCOPE,
            "telemetry.sdk.version": target.version,
        }
        self._resource = _field(b"\x0a", b"".join(_pair(b"\x0a", name, value) for name, value in about.items()))
        self._scope = _field(b"\x0a", _text(b"\x0a", SCOPE) + _text(b"\x12", target.version))

    def request(self, entries: Iterable[bytes]) -> bytes:
        """An `ExportTraceServiceRequest` or `ExportLogsServiceRequest` of what the functions below made."""
        scoped = _field(b"\x12", self._scope + b"".join(entries))
        return _field(b"\x0a", self._resource + scoped)


def span_entry(span: Span) -> bytes:
    """One span.

    Raises:
        ValueError: an id or a time is none; one wrong span would have the whole batch refused.
    """
    trace_id, own = bytes.fromhex(span.trace_id), bytes.fromhex(span.span_id)
    if len(trace_id) != _TRACE_BYTES or len(own) != _SPAN_BYTES:
        raise ValueError(f"an id of {len(trace_id)} or {len(own)} bytes")
    parts = [_TRACE_ID, trace_id, _SPAN_ID, own]
    if span.parent_id is not None:
        parent = bytes.fromhex(span.parent_id)
        if len(parent) != _SPAN_BYTES:
            raise ValueError(f"a parent's id of {len(parent)} bytes")
        parts += (_PARENT_ID, parent)
    start_ns, end_ns = round(span.start_s * _NS), round(span.end_s * _NS)
    try:
        times = _TIMES(0x39, start_ns, 0x41, max(start_ns, end_ns))
    except struct.error as error:
        raise ValueError(f"a time that is none: {error}") from error
    parts += (_cached_text(_NAME, span.name), _KIND, _KINDS[span.kind], times)
    for name, value in span.attributes.items():
        if value is None:
            continue
        if isinstance(value, float):
            parts += (_double_head(name), _DOUBLE_OF(value))
        elif name in _ONCE or (isinstance(value, str) and len(value) > _CACHED_MAX):
            parts.append(_pair(_SPAN_ATTRIBUTE, name, value))
        else:
            parts.append(_cached_pair(name, value))
    if span.error is not None:
        parts += (_cached_pair("error.type", span.error), _field(_STATUS, _text(b"\x12", span.error) + b"\x18\x02"))
    parts.append(_FLAGS)
    return _field(_ENTRY, b"".join(parts))


def line_entry(line: Mapping[str, object]) -> bytes:
    """One log record. Its fields are attributes, its event is the body and, where it is ours, the event's name."""
    level, event = str(line.get("level", "info")), str(line.get("event", ""))
    parts = [
        _fixed(_LINE_TIME, _ns_of(line.get("timestamp"))),
        _SEVERITY + _SEVERITIES.get(level, b"\x09"),
        _text(_LEVEL, level),
        _field(_BODY, _text(_STRING, event, LINE_TEXT_MAX)),
    ]
    parts += [
        _pair(_LINE_ATTRIBUTE, _CONVENTIONS.get(name, name), value, LINE_TEXT_MAX)
        for name, value in line.items()
        if name not in _IN_RECORD and value is not None
    ]
    trace_id, own = _id(line.get("trace_id"), _TRACE_BYTES), _id(line.get("span_id"), _SPAN_BYTES)
    if trace_id:
        parts += (_LINE_FLAGS, _LINE_TRACE, trace_id)
    if own:
        parts += (_LINE_SPAN, own)
    parts.append(_fixed(_OBSERVED, time.time_ns()))
    if str(line.get("logger", "")).startswith(f"{SCOPE}."):
        parts.append(_text(_EVENT, event, TEXT_MAX))
    return _field(_ENTRY, b"".join(parts))


def _varint(number: int) -> bytes:
    """Seven bits a byte, the low ones first; a negative one as its 64-bit complement."""
    number &= 0xFFFF_FFFF_FFFF_FFFF
    said = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits
        said.append(number & 0x7F | 0x80)
        number >>= 7
    said.append(number)
    return bytes(said)


_VARINTS = tuple(_varint(number) for number in range(1024))
"""Of most lengths."""


def _field(key: bytes, body: bytes) -> bytes:
    size = len(body)
    return key + (_VARINTS[size] if size < len(_VARINTS) else _varint(size)) + body


def _text(key: bytes, text: str, most: int = TEXT_MAX) -> bytes:
    """What UTF-8 cannot say becomes `?`: a collector refuses a whole batch for it."""
    return _field(key, text[:most].encode(errors="replace"))


def _pair(key: bytes, name: str, value: object, most: int = TEXT_MAX) -> bytes:
    return _field(key, _text(b"\x0a", name) + _field(b"\x12", _value(value, most)))


_cached_text = lru_cache(512)(_text)


@lru_cache(2048, typed=True)
def _cached_pair(name: str, value: str | int) -> bytes:
    return _pair(_SPAN_ATTRIBUTE, name, value)


@lru_cache(64)
def _double_head(name: str) -> bytes:
    """All of an attribute but the eight bytes of its number."""
    return _pair(_SPAN_ATTRIBUTE, name, 0.0)[:-8]


def _value(value: object, most: int, depth: int = 0) -> bytes:
    """An `AnyValue`."""
    if isinstance(value, str):
        return _text(_STRING, value, most)
    if isinstance(value, bool):
        return _BOOL + _VARINTS[value]
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return _INT + _varint(value)
    if isinstance(value, float):
        return _DOUBLE + _DOUBLE_OF(value)
    if value is None:
        return b""
    if depth < DEPTH_MAX and isinstance(value, Mapping):
        pairs = ((_text(b"\x0a", str(name)), _value(one, most, depth + 1)) for name, one in value.items())
        return _field(_MAP, b"".join(_field(b"\x0a", name + _field(b"\x12", one)) for name, one in pairs))
    if depth < DEPTH_MAX and isinstance(value, list | tuple):
        return _field(_ARRAY, b"".join(_field(b"\x0a", _value(one, most, depth + 1)) for one in value))
    return _text(_STRING, str(value), most)


def _fixed(key: bytes, number: int) -> bytes:
    return key + struct.pack("<Q", number)


def _id(said: object, size: int) -> bytes:
    """Empty where it is none: a log line may hold anything."""
    try:
        found = bytes.fromhex(str(said or ""))
    except ValueError:
        return b""
    return found if len(found) == size and any(found) else b""


def _ns_of(timestamp: object) -> int:
    """0, which means unknown, where it is none."""
    try:
        return max(0, round(datetime.fromisoformat(str(timestamp)).timestamp() * 1e6) * 1000)
    except ValueError:
        return 0

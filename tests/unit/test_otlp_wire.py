"""What is written by hand is what OpenTelemetry's generated classes read: each field, each type, any text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from tasks.otlp import OtlpTarget
from tasks.otlp_wire import LINE_TEXT_MAX, TEXT_MAX, Envelope, line_entry, span_entry
from tasks.tracing import Span

TRACE, OWN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
ENVELOPE = Envelope(OtlpTarget("http://collector.invalid", "mcpfleet-worker", "a1", "1.2.3"))
TEXTS = st.one_of(st.text(max_size=300), st.sampled_from(["\ud800", "a\udfffb", "€ 𝄞", "\x00"]))
KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
VALUES = st.one_of(
    TEXTS, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.integers(0, 3)
)
FIELDS = st.recursive(
    st.one_of(VALUES, st.integers(2**63, 2**70)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


def sent_span(span: Span) -> ProtoSpan:
    """As a collector reads it."""
    request = ExportTraceServiceRequest.FromString(ENVELOPE.request([span_entry(span)]))
    [resource] = request.resource_spans
    [scope] = resource.scope_spans
    [found] = scope.spans
    assert (scope.scope.name, scope.scope.version) == ("mcpfleet", "1.2.3")
    about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert (about["service.name"], about["service.instance.id"]) == ("mcpfleet-worker", "a1")
    return found


def sent_line(line: dict[str, object]) -> LogRecord:
    """As a collector reads it."""
    request = ExportLogsServiceRequest.FromString(ENVELOPE.request([line_entry(line)]))
    return request.resource_logs[0].scope_logs[0].log_records[0]


def plain(value: AnyValue) -> Any:
    """Back to Python."""
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [plain(one) for one in value.array_value.values]
        case "kvlist_value":
            return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
        case word:
            return getattr(value, word)


def as_said(value: object) -> object:
    """What UTF-8 and 64 bits cannot say is said otherwise."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    if isinstance(value, list):
        return [as_said(one) for one in value]
    if isinstance(value, dict):
        return {as_said(key): as_said(one) for key, one in value.items()}
    return value


@settings(max_examples=60)
@given(
    name=TEXTS,
    kind=st.sampled_from(sorted(KINDS)),
    times=st.tuples(st.floats(0, 4e9), st.floats(0, 4e9)),
    attributes=st.dictionaries(TEXTS, VALUES, max_size=12),
    error=st.none() | TEXTS,
    parent=st.none() | st.just(PARENT),
)
def test_a_span_is_read_as_it_was_meant(  # noqa: PLR0917 - its fields
    name: str,
    kind: str,
    times: tuple[float, float],
    attributes: dict[str, str | int | float | bool],
    error: str | None,
    parent: str | None,
) -> None:
    """Also with texts of any language, lone surrogates, and numbers of any size; a cached part is of its own type."""
    found = sent_span(Span(name, TRACE, OWN, parent, *times, kind, attributes | {"left.out": None}, error))
    assert (found.trace_id.hex(), found.span_id.hex(), found.parent_span_id.hex()) == (TRACE, OWN, parent or "")
    assert (found.name, found.kind, found.flags) == (as_said(name), KINDS[kind], 1)
    assert found.start_time_unix_nano == round(times[0] * 1e9)
    assert found.end_time_unix_nano == round(max(times) * 1e9)
    pairs = [(pair.key, plain(pair.value)) for pair in found.attributes]
    wanted = [(as_said(key), as_said(value)) for key, value in attributes.items()]
    wanted += [] if error is None else [("error.type", as_said(error))]
    assert [(key, type(value), value) for key, value in pairs] == [(key, type(value), value) for key, value in wanted]
    assert (found.status.code, found.status.message) == ((0, "") if error is None else (2, as_said(error)))
    assert len(UnknownFieldSet(found)) == 0


@settings(max_examples=40)
@given(fields=st.dictionaries(st.text("abcdefgh_", min_size=1, max_size=8), FIELDS, max_size=6), event=TEXTS)
def test_a_line_is_read_as_it_was_written(fields: dict[str, object], event: str) -> None:
    """With nested values, and what an exporter makes of the fields that a log record has places for."""
    own = {"timestamp": "2026-11-22T06:10:31.482913Z", "level": "error", "trace_id": TRACE, "span_id": OWN}
    found = sent_line(fields | own | {"event": event, "logger": "mcpfleet.x", "exception": "Traceback …"})
    assert (found.time_unix_nano, found.severity_number, found.severity_text) == (1795327831482913000, 17, "error")
    assert (found.body.string_value, found.event_name) == (as_said(event),) * 2
    assert (found.trace_id.hex(), found.span_id.hex(), found.flags) == (TRACE, OWN, 1)
    about = {pair.key: plain(pair.value) for pair in found.attributes}
    wanted: Any = as_said(fields) | {"logger": "mcpfleet.x", "exception.stacktrace": "Traceback …"}  # type: ignore[operator]
    assert about == wanted
    assert found.observed_time_unix_nano > 0


@pytest.mark.parametrize("wrong", [{"trace_id": "no trace"}, {"trace_id": 5, "span_id": "ab"}, {"timestamp": None}])
def test_a_line_with_a_wrong_field_is_sent_without_it(wrong: dict[str, object]) -> None:
    """A library's line may hold anything under a name that is ours."""
    found = sent_line({"event": "said", "level": "loud", "logger": "urllib3"} | wrong)
    assert (found.trace_id, found.span_id, found.severity_number, found.event_name) == (b"", b"", 9, "")


def test_long_texts_are_cut() -> None:
    """A tool, a project or a traceback may be of any length; a request has a size that collectors take."""
    found = sent_span(Span("x" * 9999, TRACE, OWN, None, 1.0, 2.0, attributes={"mcpfleet.project": "y" * 9999}))
    assert (len(found.name), len(found.attributes[0].value.string_value)) == (TEXT_MAX, TEXT_MAX)
    line = sent_line({"event": "said", "exception": "z" * 99_999})
    assert len(line.attributes[0].value.string_value) == LINE_TEXT_MAX


@pytest.mark.parametrize(
    "broken",
    [
        lambda: Span("x", "ab", OWN, None, 1.0, 2.0),
        lambda: Span("x", TRACE, OWN * 2, None, 1.0, 2.0),
        lambda: Span("x", TRACE, OWN, "ab", 1.0, 2.0),
        lambda: Span("x", TRACE, OWN, "not hex at all!!", 1.0, 2.0),
        lambda: Span("x", TRACE, OWN, None, -1.0, 2.0),
        lambda: Span("x", TRACE, OWN, None, 1.0, 1e30),
    ],
)
def test_a_span_that_would_spoil_its_batch_is_refused(broken: Callable[[], Span]) -> None:
    """An id of a wrong length would be read as other fields, and the collector would refuse all of them."""
    with pytest.raises(ValueError, match=r"id|time|hex"):
        span_entry(broken())


def test_what_is_kept_of_one_span_is_not_mistaken_for_another() -> None:
    """1, True, 1.0 and "1" are equal or alike in Python, and four things to a collector."""
    values: list[str | int | float | bool] = [1, True, 1.0, "1", 0, False, 0.0, -1]
    spans = [Span("x", TRACE, OWN, None, 1.0, 2.0, attributes={"a": value}) for value in values]
    found = [sent_span(span).attributes[0] for span in spans]
    assert [(type(plain(one.value)), plain(one.value)) for one in found] == [(type(one), one) for one in values]

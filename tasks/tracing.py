"""Spans as both sides make them: from facts that are known already, with ids that follow from them.

A span's id is a digest of the Invocation, the attempt's fence and the span's part in it. So two processes
name each other's spans without having spoken, a node's span has a parent that the orchestrator makes hours
later, and a restart in between changes nothing. Owns these ids, the sampling and the form of a span.
Refuses to send: `tasks/otlp.py` does. Nothing of OpenTelemetry is imported here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_ZERO_TRACE, _ZERO_SPAN = "0" * 32, "0" * 16
_SAMPLED = 1
_LOW_64 = 16
"""Hex digits of a trace id that the ratio looks at."""

INVOCATION, ACCEPT, WAIT, ATTEMPT, SETTLE = "invocation", "accept", "wait", "attempt", "settle"
"""Parts that the orchestrator makes."""
PROCESS, CALL, MODEL = "process", "call", "model"
"""Parts that a node makes."""

SERVER, CLIENT, PRODUCER, CONSUMER, INTERNAL = "SERVER", "CLIENT", "PRODUCER", "CONSUMER", "INTERNAL"
"""Kinds. Source: OpenTelemetry, trace API, SpanKind."""

Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Trace:
    """Where in a trace one stands: what a `traceparent` says. Source: W3C Trace Context, level 1."""

    trace_id: str
    span_id: str
    is_sampled: bool

    def traceparent(self) -> str:
        """As it is sent."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span. Times are seconds of the wall clock."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start_s: float
    end_s: float
    kind: str = INTERNAL
    attributes: Mapping[str, Attribute | None] = field(default_factory=dict)
    """None: left out."""
    error: str | None = None
    """What went wrong, as a constant word; the span's status is an error then."""


class Spans(Protocol):
    """Where finished spans go."""

    ratio: float
    """Share of traces that are kept, of those whose caller does not say."""

    def put(self, span: Span) -> None:
        """Take it; never blocks, never raises."""
        ...

    def put_later(self, count: int, make: Callable[[], Iterable[Span]]) -> None:
        """As `put`, of so many, which are made when nobody waits; of facts that do not change any more."""
        ...

    def lost(self, count: int) -> None:
        """So many could not be made."""
        ...


def read_traceparent(text: object) -> Trace | None:
    """What a `traceparent` says; None where it is none. Source: W3C Trace Context, 3.2."""
    found = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[1] == "ff" or found[2] == _ZERO_TRACE or found[3] == _ZERO_SPAN:
        return None
    return Trace(found[2], found[3], bool(int(found[4], 16) & _SAMPLED))


def span_id(invocation: str, *part: str | int) -> str:
    """The id of one part of an Invocation's trace, e.g. `(id, 2, "attempt")`."""
    said = "\0".join([invocation, *map(str, part)])
    return hashlib.blake2b(said.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def is_trace_id(text: str) -> bool:
    """Whether it is one: what is in the ledger may have been written by anybody."""
    return _TRACE_ID.fullmatch(text) is not None and text != _ZERO_TRACE


def is_kept(trace_id: str, ratio: float) -> bool:
    """Whether a trace is among the share that is kept; the same answer in every process.

    Source: OpenTelemetry, trace SDK, TraceIdRatioBased: the lower 64 bits of the id against the ratio.
    """
    if ratio >= 1.0:
        return True
    return ratio > 0.0 and int(trace_id[-_LOW_64:], 16) < round(ratio * (1 << 64))


def parent_of(trace_parent: str | None) -> tuple[str | None, bool | None]:
    """The caller's span id and whether its trace is sampled, of what `trace_parent_of` made."""
    if trace_parent is None:
        return None, None
    caller, _, flags = trace_parent.partition("-")
    return caller or None, flags == "01" if flags else None


def below(invocation: str, part: str, trace_parent: str | None) -> str:
    """The `trace_parent` of what an Invocation leads to: that part of it, with what its caller said of sampling."""
    _, is_sampled = parent_of(trace_parent)
    return f"{span_id(invocation, part)}-" + ("" if is_sampled is None else f"{int(is_sampled):02x}")


def trace_parent_of(trace: Trace | None) -> str | None:
    """What is kept of a caller's `traceparent` beside its trace id: span id and flags."""
    return None if trace is None else f"{trace.span_id}-{int(trace.is_sampled):02x}"


def is_sampled(trace_id: str, trace_parent: str | None, ratio: float) -> bool:
    """Whether spans of this call are made. Parent-based: a caller that says so decides; else the ratio does.

    Source: OpenTelemetry, trace SDK, ParentBased(TraceIdRatioBased).
    """
    said = parent_of(trace_parent)[1]
    return is_kept(trace_id, ratio) if said is None else said

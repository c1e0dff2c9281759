"""Which trace a request belongs to."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tasks.tracing import read_traceparent, trace_parent_of

_TRACEPARENT_PARTS = 4
_TRACE_ID_CHARS = 32


def parent_of(headers: Mapping[bytes, bytes], trace_id: str | None) -> str | None:
    """The caller's span in this trace, as it is kept; None where its `traceparent` is of another, or it sent none."""
    found = read_traceparent(headers.get(b"traceparent", b"").decode("latin-1"))
    return trace_parent_of(found) if found is not None and found.trace_id == trace_id else None


def trace_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's trace id, or a new one. Source: W3C Trace Context, `traceparent`."""
    parts = headers.get(b"traceparent", b"").decode("latin-1").split("-")
    if len(parts) >= _TRACEPARENT_PARTS and len(parts[1]) == _TRACE_ID_CHARS:
        given = parts[1]
        if set(given) <= set("0123456789abcdef") and set(given) != {"0"}:
            return given
    return os.urandom(16).hex()

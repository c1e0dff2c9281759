"""Which trace a request belongs to."""

from __future__ import annotations

import os
from collections.abc import Mapping

_TRACEPARENT_PARTS = 4
_TRACE_ID_CHARS = 32


def trace_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's trace id, or a new one. Source: W3C Trace Context, `traceparent`."""
    parts = headers.get(b"traceparent", b"").decode("latin-1").split("-")
    if len(parts) >= _TRACEPARENT_PARTS and len(parts[1]) == _TRACE_ID_CHARS:
        given = parts[1]
        if set(given) <= set("0123456789abcdef") and set(given) != {"0"}:
            return given
    return os.urandom(16).hex()

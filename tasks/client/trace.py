"""Where in a trace the caller stands, for whoever uses OpenTelemetry. Refuses to import it: nobody else shall pay."""

from __future__ import annotations

import sys


def current_traceparent() -> str | None:
    """Of the span that is current; None where there is none. Source: W3C Trace Context, `traceparent`."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    here = api.get_current_span().get_span_context()
    if not here.is_valid:
        return None
    return f"00-{here.trace_id:032x}-{here.span_id:016x}-{int(here.trace_flags) & 1:02x}"

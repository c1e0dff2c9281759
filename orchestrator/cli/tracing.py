"""The command's own place in a trace: below `TRACEPARENT` of its environment, and a span where a collector is named."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from orchestrator.cli.api import Api
from orchestrator.cli.desk import Desk
from tasks.errors import FleetError
from tasks.otlp import OtlpTarget, begin_otlp
from tasks.tracing import CLIENT, Span, Trace, read_traceparent

SERVICE = "mcpfleet"
SEND_S = 2.0
"""A command is not kept longer by a collector that does not answer."""
ENDPOINT, HEADERS = "MCPFLEET_OTLP_ENDPOINT", "MCPFLEET_OTLP_HEADERS_FILE"
CA = "MCPFLEET_OTLP_CA_FILE"


@contextmanager
def traced(desk: Desk, api: Api, tool: str) -> Iterator[None]:
    """Calls within belong to one trace.

    Source: OpenTelemetry, environment variables as context propagation carriers: `TRACEPARENT`.

    Raises:
        SettingsError: the file of headers cannot be used.
    """
    environ = desk.settings.environ
    above = read_traceparent(environ.get("TRACEPARENT"))
    target = _target(environ)
    if target is None:
        api.traceparent = None if above is None else above.traceparent()
        yield
        return
    otlp, start_s, error = begin_otlp(target), desk.now(), None
    assert otlp is not None, "an endpoint is named"
    here = Trace(
        above.trace_id if above else os.urandom(16).hex(), os.urandom(8).hex(), above is None or above.is_sampled
    )
    api.traceparent = here.traceparent()
    try:
        yield
    except FleetError as failed:
        error = failed.code
        raise
    finally:
        if here.is_sampled:
            parent = None if above is None else above.span_id
            times = (start_s, desk.now())
            attributes = {"gen_ai.tool.name": tool}
            otlp.put(Span(f"call {tool}", here.trace_id, here.span_id, parent, *times, CLIENT, attributes, error))
        otlp.close(SEND_S)


def _target(environ: Mapping[str, str]) -> OtlpTarget | None:
    endpoint = environ.get(ENDPOINT)
    headers, ca_file = (Path(named) if named else None for named in (environ.get(HEADERS), environ.get(CA)))
    if not endpoint:
        return None
    own = f"{socket.gethostname()}:{os.getpid()}"
    return OtlpTarget(endpoint, SERVICE, own, version("mcpfleet"), headers=headers, ca_file=ca_file)

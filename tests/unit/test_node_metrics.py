"""What a node shows a scraper: the trace of an attempt as an exemplar, in the format that has them."""

from __future__ import annotations

import httpx
from starlette.applications import Starlette

from tasks.outcome import Outcome
from worker.exporter import Metrics, routes

TRACE = "0af7651916cd43dd8448eb211c80319c"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


async def test_a_scraper_that_can_read_exemplars_gets_trace_ids_of_nodes() -> None:
    """By content negotiation, as the orchestrator does; an attempt without a trace is counted without."""
    metrics = Metrics()
    metrics.ended("time.now", Outcome("succeeded"), 0.02, TRACE)
    metrics.ended("time.now", Outcome("succeeded"), 0.2, None)
    app = Starlette(routes=[*routes(metrics, lambda: {"ok": True})])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
        modern = await client.get("/metrics", headers={"accept": OPENMETRICS})
        plain = await client.get("/metrics")
    assert modern.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    [line] = [line for line in modern.text.splitlines() if TRACE in line]
    assert line.startswith('mcp_request_duration_seconds_bucket{le="0.025",tool="time.now"}')
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert "trace_id" not in plain.text
    assert 'mcp_request_duration_seconds_count{tool="time.now"} 2.0' in plain.text

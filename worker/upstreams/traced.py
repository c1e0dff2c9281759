"""Spans of what an attempt does: the call of its tool, and each request to a model on behalf of it.

Owns their names and attributes, which are OpenTelemetry's. Refuses arguments, results, prompts and the text of
errors: an error is its code. Source: OpenTelemetry, semantic conventions for MCP and generative AI, 1.41.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from tasks.clock import Clock
from tasks.spend import Spend
from tasks.tracing import CLIENT, Attribute, Span, Spans, Trace
from worker.upstreams.errors import UpstreamError
from worker.upstreams.upstream import OnRequest

_SAID_BY_TOOL = ('"isError":true', '"isError": true')
"""In a CallToolResult, which is carried as text and not parsed for this."""


class CallTracer:
    """Makes a span of each call of a tool, and of each request to a model on its behalf."""

    def __init__(self, spans: Spans, clock: Clock) -> None:
        self._spans, self._clock = spans, clock

    async def call(self, tool: str, above: Trace, run: Callable[[Trace, OnRequest], Awaitable[str]]) -> str:
        """What `run` answers. It is told its own place in the trace, for the server."""
        here = Trace(above.trace_id, os.urandom(8).hex(), above.is_sampled)
        start_s, error = self._clock.wall_s(), None
        try:
            said = await run(here, self._model_requests(here))
            error = "tool_error" if any(mark in said for mark in _SAID_BY_TOOL) else None
        except UpstreamError as failed:
            error = failed.info.code
            raise
        except (asyncio.CancelledError, TimeoutError):
            error = "cancelled"
            raise
        finally:
            self._spans.put(_call_span(tool, here, above.span_id, (start_s, self._clock.wall_s()), error))
        return said

    def _model_requests(self, above: Trace) -> OnRequest:
        def tell(used: Spend, took_s: float) -> None:
            end_s = self._clock.wall_s()
            attributes: dict[str, Attribute | None] = {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": used.model,
                "gen_ai.usage.input_tokens": used.input + used.cache_read + used.cache_write,
                "gen_ai.usage.output_tokens": used.output,
                "gen_ai.usage.cache_read.input_tokens": used.cache_read,
                "gen_ai.usage.cache_creation.input_tokens": used.cache_write,
                "mcpfleet.cost_usd": used.cost_usd,
            }
            own, times = os.urandom(8).hex(), (end_s - took_s, end_s)
            self._spans.put(Span(f"chat {used.model}", above.trace_id, own, above.span_id, *times, CLIENT, attributes))

        return tell


def _call_span(tool: str, here: Trace, parent_id: str, times: tuple[float, float], error: str | None) -> Span:
    server, _, name = tool.partition(".")
    attributes: dict[str, Attribute | None] = {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "mcpfleet.server": server,
    }
    return Span(f"tools/call {name}", here.trace_id, here.span_id, parent_id, *times, CLIENT, attributes, error)

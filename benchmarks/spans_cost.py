"""What traces cost, functions alone: CPU of one call's spans, in the orchestrator and on its node, and of a request.

    python -m benchmarks.spans_cost

Everything in one process and on one thread; the least of several rounds, for other work on the machine only adds. In
a running fleet caches are cold: `make bench ARGS='--overhead "mcpfleet, HTTP, observed"'` is the whole of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

from benchmarks.metrics_cost import least_us, life
from benchmarks.sink import Drop
from orchestrator.observability.spans import SpanFeed
from tasks.clock import SystemClock
from tasks.invocation import Invocation
from tasks.otlp import Otlp, OtlpTarget, open_otlp
from tasks.otlp_http import Answer
from tasks.outcome import Outcome
from tasks.testing.clock import FakeClock
from tasks.tracing import Trace
from worker.tracing import process_span
from worker.upstreams.traced import CallTracer

CALLS = 500
LINE = {"event": "node_joined", "level": "info", "logger": "mcpfleet.registry", "node": "a1", "term": 7, "pid": 4121}


async def no_row(_id: str) -> Invocation:
    """Never asked."""
    raise AssertionError


async def echo(*_: object) -> str:
    """A tool that takes no time."""
    return '{"content":[]}'


def on_the_node(otlp: Otlp) -> Callable[[], None]:
    """Both spans of an attempt."""
    delivery = SimpleNamespace(tool="time.get_current_time", invocation="i", fence=1)
    work: Any = SimpleNamespace(delivery=delivery, received_at=1.0, started_at=1.001)
    tracer, here, outcome = (
        CallTracer(otlp, SystemClock()),
        Trace("ab" * 16, "cd" * 8, is_sampled=True),
        Outcome("done"),
    )
    loop = asyncio.new_event_loop()

    async def calls() -> None:
        for _ in range(CALLS):
            await tracer.call("time.get_current_time", here, echo)
            otlp.put(process_span(work, outcome, here, 1.01))

    return lambda: loop.run_until_complete(calls())


def main() -> None:
    """Print the table."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Drop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = OtlpTarget(f"http://127.0.0.1:{server.server_port}", "s", "i", "v")
    otlp, kept = open_otlp(target), Otlp(lambda *_: Answer(0), lambda *_: Answer(0), ratio=1.0)
    feed, told = SpanFeed(kept, get=no_row, clock=FakeClock(wall_s=0.905)), life()

    def heard() -> None:
        for _ in range(CALLS):
            for happening in told:
                feed.hear(happening)

    def after(work: Callable[[], None]) -> Callable[[], None]:
        def all_of_it() -> None:
            work()
            kept.spans.flush()
            kept.lines.flush()

        return all_of_it

    def logged() -> None:
        for _ in range(CALLS):
            kept.line(LINE, 150)

    def posted() -> None:
        otlp.line(LINE, 150)
        otlp.lines.flush()

    print(f"orchestrator: a call is heard, made, encoded  {least_us(after(heard), 3) / CALLS:8.1f} us")
    print(f"node: an attempt's two spans, encoded         {least_us(after(on_the_node(kept)), 3) / CALLS:8.1f} us")
    print(f"a log line, put and encoded                   {least_us(after(logged), 3) / CALLS:8.1f} us")
    print(f"a request                                     {least_us(posted, 50):8.1f} us")
    server.shutdown()


if __name__ == "__main__":
    main()

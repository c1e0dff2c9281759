"""What metrics cost: CPU of one call's happenings, of one request at a door, and of one scrape.

    python -m benchmarks.metrics_cost

Everything in one process and on one thread; the least of several rounds, for other work on the machine only adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from orchestrator.happenings import Accepted, AttemptEnded, AttemptReleased, AttemptRunning, Ended, Happening
from orchestrator.observability.calls import LiveCalls
from orchestrator.observability.doors import ApiMeter, DoorMetrics
from orchestrator.observability.metrics import Metrics
from orchestrator.observability.objectives import Objectives
from tasks.clock import SystemClock
from tasks.invocation import Call, Invocation, Lane, Principal, State
from tasks.labels import TOOLS_MAX
from tasks.outcome import Outcome

CALLS, ROUNDS = 20_000, 7
TRACE = "0af7651916cd43dd8448eb211c80319c"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def life(tool: str = "time.get_current_time", name: str = "i") -> tuple[Happening, ...]:
    """What is told of one call that goes well."""
    call = Call(tool, trace_id=TRACE)
    ended = AttemptEnded(
        name, 1, tool, "shop", "main", "n", Lane.TOOLS, State.SUCCEEDED, "succeeded", 1.0, 1.001, 1.01, 1, None, None
    )
    return (
        Accepted(Invocation(name, call, Principal("p"), Lane.TOOLS, State.WAITING, 0.9)),
        AttemptReleased(name, 1, tool, "shop", "main", "n", Lane.TOOLS, "q", 1.0, 0.01, ("affinity: shop is warm",)),
        AttemptRunning(name, 1, "n", 1.001),
        ended,
        Ended(name, State.SUCCEEDED, 1.01, tool, Outcome("succeeded"), None, ended),
    )


def least_us(work: Callable[[], object], times: int) -> float:
    """CPU microseconds of one `work`, in the best round."""
    rounds = []
    for _ in range(ROUNDS):
        before_s = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - before_s) / times * 1e6)
    return min(rounds)


def main() -> None:
    """Print the table."""
    clock, registry = SystemClock(), CollectorRegistry()
    calls = LiveCalls(clock)
    metrics, objectives = Metrics(registry, calls), Objectives(registry, calls, clock, lease_ttl_s=7.0)
    meter, told = ApiMeter(DoorMetrics(registry, clock, objectives.refused)), life()

    def counters() -> None:
        for happening in told:
            metrics.hear(happening)

    def all_of_it() -> None:
        for happening in told:
            calls.begin(happening)
            metrics.hear(happening)
            objectives.hear(happening)
            calls.end(happening)

    print(f"call, counters without exemplars  {least_us(counters, CALLS):8.1f} us")
    print(f"call, with exemplars, objectives  {least_us(all_of_it, CALLS):8.1f} us")
    print(
        f"request at a door                 {least_us(lambda: meter.answered('call', 202, 0.0, TRACE), CALLS):8.1f} us"
    )
    for number in range(TOOLS_MAX + 100):
        for happening in life(f"server.tool_{number}"):
            metrics.hear(happening)
    encode, _ = choose_encoder(OPENMETRICS)
    print(f"scrape of {TOOLS_MAX} tools: read         {least_us(lambda: list(registry.collect()), 5) / 1000:8.1f} ms")
    print(f"scrape of {TOOLS_MAX} tools: read, write  {least_us(lambda: encode(registry), 5) / 1000:8.1f} ms")


if __name__ == "__main__":
    main()

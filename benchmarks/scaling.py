"""What must not grow: the orchestrator's cost per call with a deep backlog, and with many nodes.

Nodes are simulated (benchmarks/simulated_nodes.py), so that two cores suffice; the figures are the
orchestrator's and the broker's only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleet_side import SLOTS, Fleet, client, fleet
from benchmarks.processes import Broker, Crew, python, running
from benchmarks.sides import Running
from benchmarks.simulated_nodes import STUCK

BATCH_CALLS = 1000
PROJECTS = 100
CALLERS = 16


@dataclass(frozen=True, slots=True)
class Scaled:
    """One measurement. Milliseconds of CPU per call."""

    nodes: int
    backlog: int
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    orchestrator_ms: float
    broker_ms: float
    orchestrator_rss_mb: float
    failed: int


def measure_scaling(broker: Broker, logs: Path, *, seconds: float, deep: int) -> list[Scaled]:
    """2 nodes with a backlog of 100 and of `deep`, then 100 nodes."""
    found = []
    for nodes, backlogs in ((2, (100, deep)), (100, (100,))):
        broker.flush()
        with simulated(broker, logs, nodes=nodes) as (up, side):
            waiting = 0
            for backlog in backlogs:
                print(f"{nodes} nodes, backlog {backlog:,} …", file=sys.stderr, flush=True)
                fill(up, backlog - waiting)
                waiting = backlog
                found.append(_measure(side, nodes=nodes, backlog=backlog, seconds=seconds))
    return found


@contextmanager
def simulated(broker: Broker, logs: Path, *, nodes: int) -> Iterator[tuple[Fleet, Running]]:
    """A real orchestrator, simulated nodes, an HTTP client."""
    with ExitStack() as stack:
        up = stack.enter_context(fleet(broker, logs))
        env = up.client_env() | {"BENCH_JOIN_TOKEN": up.join_token}
        slots = max(1, SLOTS // nodes)
        command = [
            python(),
            "-m",
            "benchmarks.simulated_nodes",
            "--nodes",
            str(nodes),
            "--slots",
            str(slots),
            "--stuck",
        ]
        crowd = stack.enter_context(running(command, env=env, log=logs / "simulated_nodes.log", is_client=True))
        assert crowd.stdout is not None
        if crowd.stdout.readline().strip() != b"ready":
            raise RuntimeError("the simulated nodes did not join; see simulated_nodes.log")
        up.wait_for_tool("probe.echo")
        orders, process = stack.enter_context(client(up, logs, "http", "probe.echo", {}))
        parts = {"orchestrator": [up.orchestrator], "nodes": [crowd], "client": [process]}
        yield up, Running(Crew(parts, broker), orders)


def fill(up: Fleet, count: int) -> None:
    """So many more calls wait: for a pool whose only slot is taken, in a hundred projects."""
    for start in range(0, count, BATCH_CALLS):
        numbers = range(start, min(count, start + BATCH_CALLS))
        calls = [{"tool": "probe.echo", "pool": STUCK, "project": f"p{number % PROJECTS}"} for number in numbers]
        up.ask("/v1/invocations:batch", {"calls": calls})


def _measure(side: Running, *, nodes: int, backlog: int, seconds: float) -> Scaled:
    side.client.ask(mode="closed", callers=CALLERS, seconds=1.0)
    if not side.crew.is_alive():
        raise RuntimeError("a process died; see the logs")
    before = side.crew.cpu_s()
    run = side.client.ask(mode="closed", callers=CALLERS, seconds=seconds)
    after = side.crew.cpu_s()
    per_call = {part: round(1000 * (after[part] - before[part]) / max(1.0, run["calls"]), 3) for part in after}
    return Scaled(
        nodes=nodes,
        backlog=backlog,
        calls_per_s=run["calls_per_s"],
        p50_ms=run["p50_ms"],
        p99_ms=run["p99_ms"],
        orchestrator_ms=per_call["orchestrator"],
        broker_ms=per_call["broker"],
        orchestrator_rss_mb=side.crew.rss_mb()["orchestrator"],
        failed=int(run["failed"]),
    )

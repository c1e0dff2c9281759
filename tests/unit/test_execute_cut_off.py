"""What a node does with its agents' runs while the orchestrator cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tasks.invocation import Lane
from worker.testing.executor_bench import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A node with a slot for an agent and a good lease."""
    bench = Bench(tmp_path)
    yield bench
    bench.servers.gate.set()
    await asyncio.gather(*(work.task for work in bench.executor._works.values() if work.task is not None))
    await bench.journal.close()


@pytest.mark.parametrize(
    ("said", "state", "away_s", "stops"),
    [
        pytest.param({"handover_s": 180.0}, "saved", 187.0, True, id="another node has it by now"),
        pytest.param({"handover_s": 180.0}, "saved", 186.9, False, id="it may yet come back with it"),
        pytest.param({"handover_s": 180.0}, "known", 1_000.0, False, id="nobody can go on with it"),
        pytest.param({"handover_s": 180.0}, "unheard of", 187.0, True, id="nobody heard that it began"),
        pytest.param({"handover_s": 180.0, "capsule": "0" * 64}, "known", 187.0, True, id="from where it went on"),
        pytest.param({}, "saved", 1_000.0, False, id="nobody else will"),
    ],
)
async def test_node_that_is_cut_off_ends_what_others_go_on_with(
    bench: Bench, said: dict[str, Any], state: str, away_s: float, stops: bool
) -> None:
    """Two nodes at one session would both be paid for; a run that nobody else can have is worth its end."""
    bench.deliver("run", "t.wait", lane=Lane.AGENTS, **said)
    await bench.began()
    if state != "unheard of":
        bench.executor.known(bench.executor.held())
    work = next(iter(bench.executor._works.values()))
    if state == "saved":
        bench.executor._runner.watch.saved(work, 1, "0" * 64)
    bench.clock.advance(away_s)
    bench.executor.cut_off()
    bench.executor.cut_off()
    bench.servers.gate.set()
    error = (await bench.ended("run")).outcome.error
    assert (error is not None and error.code == "node_cut_off") is stops

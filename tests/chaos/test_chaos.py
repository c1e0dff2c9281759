"""A short run of `make chaos`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.chaos.faults import FAULTS, LAPSE, OF_REPLICAS, OF_SQLITE, ORCHESTRATOR
from tests.chaos.run import Plan, run
from tests.chaos.terms import SHORT

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 10.0


@pytest.mark.timeout(400)
def test_nothing_is_lost_and_nothing_runs_twice(tmp_path: Path) -> None:
    """Nodes, orchestrator, Redis, ledger and MCP servers are hurt while six callers call, and leases lapse."""
    said: list[str] = []
    plan = Plan(
        seed=11, seconds=SECONDS, nodes=2, faults=FAULTS + OF_SQLITE, terms=SHORT, opening=(LAPSE,), mischief_share=0.0
    )
    report = asyncio.run(run(plan, tmp_path, said.append))
    assert report.books.violations == [], "\n".join(said)
    assert report.faults.total() > 2
    assert report.lapses > 0
    assert report.books.states["succeeded"] > 0


@pytest.mark.timeout(400)
@pytest.mark.live("postgres")
def test_two_orchestrators_are_as_good_as_one(tmp_path: Path, postgres_url: str) -> None:
    """They are killed, frozen, and restarted one after the other, while callers ask either."""
    said: list[str] = []
    faults = tuple(fault for fault in FAULTS if fault.target == ORCHESTRATOR) + OF_REPLICAS
    plan = Plan(seed=3, seconds=SECONDS, nodes=1, replicas=2, faults=faults, terms=SHORT, mischief_share=0.0)
    report = asyncio.run(run(plan, tmp_path, said.append, postgres_url))
    assert report.books.violations == [], "\n".join(said)
    assert report.faults.total() > 0
    assert report.books.states["succeeded"] > 0

"""A short run of `make chaos`, and the books it relies on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.books import check
from tests.chaos.faults import FAULTS, OF_REPLICAS, OF_SQLITE, ORCHESTRATOR
from tests.chaos.run import Plan, run
from tests.chaos.traffic import SAFE, UNSAFE, Asked

if TYPE_CHECKING:
    from pathlib import Path

LONG = frozenset({"node vanishes", "node frozen past its lease", "Redis paused"})
"""Each takes longer than this whole run; `make chaos` has them."""
SECONDS = 6.0


@pytest.mark.timeout(400)
def test_nothing_is_lost_and_nothing_runs_twice(tmp_path: Path) -> None:
    """Nodes, orchestrator, Redis, ledger and MCP servers are hurt while six callers call."""
    said: list[str] = []
    faults = tuple(fault for fault in FAULTS + OF_SQLITE if fault.name not in LONG)
    report = asyncio.run(run(Plan(seed=11, seconds=SECONDS, nodes=2, faults=faults), tmp_path, said.append))
    assert report.books.violations == [], "\n".join(said)
    assert report.faults.total() > 2
    assert report.books.states["succeeded"] > 0


@pytest.mark.timeout(400)
@pytest.mark.live("postgres")
def test_two_orchestrators_are_as_good_as_one(tmp_path: Path, postgres_url: str) -> None:
    """They are killed, frozen, and restarted one after the other, while callers ask either."""
    said: list[str] = []
    faults = tuple(fault for fault in FAULTS if fault.target == ORCHESTRATOR) + OF_REPLICAS
    plan = Plan(seed=3, seconds=SECONDS, nodes=1, replicas=2, faults=faults)
    report = asyncio.run(run(plan, tmp_path, said.append, postgres_url))
    assert report.books.violations == [], "\n".join(said)
    assert report.faults.total() > 0
    assert report.books.states["succeeded"] > 0


def _asked(tool: str = UNSAFE, state: str = "succeeded", mischief: str = "", **view: Any) -> Asked:
    text = [{"type": "text", "text": "k"}] if state == "succeeded" else []
    given = {"state": state, "attempts": [], "result": {"content": text}, "error": None, **view}
    return Asked("k", tool, mischief, id="i", view=given)


def _attempt(node: str = "n1", code: str | None = None, **more: Any) -> dict[str, Any]:
    error = {"code": code} if code else None
    return {
        "node": node,
        "ending": "failed",
        "error": error,
        "released_at": 1.0,
        "started_at": 1.0,
        "ended_at": 9.0,
    } | more


WRONG = [
    pytest.param(_asked(), 2, "done 2 times", id="twice"),
    pytest.param(_asked(), 0, "its effect never happened", id="succeeded without an effect"),
    pytest.param(_asked(result={"content": [{"text": "other"}]}), 1, "answer of another call", id="another's answer"),
    pytest.param(_asked(SAFE, "failed"), 1, "safe to repeat, and ended failed", id="safe and failed"),
    pytest.param(_asked(SAFE, "lost", attempts=[_attempt()]), 1, "safe to repeat, and lost", id="safe and lost"),
    pytest.param(_asked(UNSAFE, "lost"), 0, "never released", id="lost without a node"),
    pytest.param(_asked(UNSAFE, "cancelled"), 0, "nobody asked for that", id="cancelled by nobody"),
    pytest.param(_asked(UNSAFE, "waiting"), 0, "still waiting", id="without an end"),
    pytest.param(Asked("k", UNSAFE, ""), 0, "never accepted", id="never accepted"),
    pytest.param(Asked("k", UNSAFE, "", id="i"), 0, "nobody knows it", id="forgotten"),
]


@pytest.mark.parametrize(("call", "effects", "words"), WRONG)
def test_the_books_notice(call: Asked, effects: int, words: str) -> None:
    """A check that finds nothing proves nothing."""
    found = check([call], {"k": effects}, {}, 10.0).violations
    assert any(words in sentence for sentence in found), found


DEADLY = [_attempt(code="node_restarted"), _attempt(code="node_replaced")]
RIGHT = [
    pytest.param(_asked(), 1, id="once"),
    pytest.param(_asked(SAFE), 3, id="safe, more than once"),
    pytest.param(_asked(UNSAFE, "lost", attempts=[_attempt()]), 1, id="lost, and it had happened"),
    pytest.param(_asked(UNSAFE, "failed"), 0, id="failed"),
    pytest.param(_asked(SAFE, "failed", "crash"), 3, id="a tool that kills its server"),
    pytest.param(
        _asked(SAFE, "failed", attempts=[_attempt(code="node_restarted"), _attempt(code="node_replaced")]),
        2,
        id="poison",
    ),
]


@pytest.mark.parametrize(("call", "effects"), RIGHT)
def test_the_books_do_not_cry_wolf(call: Asked, effects: int) -> None:
    """What the promises allow is no violation."""
    assert check([call], {"k": effects}, {}, 10.0).violations == []


def test_an_effect_nobody_asked_for_is_noticed() -> None:
    """A delivery that was made up, or that belongs to another fleet."""
    assert check([], {"x": 1}, {}, 10.0).violations == ["x: an effect that nobody asked for"]


def test_failover_counts_from_the_loss_to_the_next_start_elsewhere() -> None:
    """And only for what the node held."""
    held = [_attempt("n1", released_at=1.0, ended_at=9.0), _attempt("n2", released_at=9.0, started_at=10.0)]
    earlier = [_attempt("n1", released_at=1.0, ended_at=3.0), _attempt("n2", released_at=3.0, started_at=4.0)]
    calls = [_asked(SAFE, attempts=held), _asked(SAFE, attempts=earlier)]
    assert check(calls, {"k": 1}, {"n1": [4.0]}, 10.0).failovers_s == [6.0]

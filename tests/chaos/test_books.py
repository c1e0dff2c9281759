"""The books that a chaos run relies on: a check that finds nothing proves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.chaos.asked import SAFE, UNSAFE, Asked
from tests.chaos.books import check
from tests.chaos.evidence import Evidence, Mark, Trouble

NODE_KILLED = Trouble("n1", "node killed", 5.0, 6.0)
OTHER_NODE_KILLED = Trouble("n2", "node killed", 5.0, 6.0)
LONG_AGO = Trouble("n1", "node killed", -200.0, -100.0)
REDIS_PAUSED = Trouble("redis", "Redis paused", 5.0, 6.0, is_node=False)


def _asked(tool: str = UNSAFE, state: str = "succeeded", mischief: str = "", **view: Any) -> Asked:
    text = [{"type": "text", "text": "k"}] if state == "succeeded" else []
    given = {
        "state": state,
        "fence": 1,
        "attempts": [_attempt(ending=state)],
        "result": {"content": text},
        "error": None,
        "ended_at": 9.0,
        "replay_of": None,
        **view,
    }
    return Asked("k", tool, mischief, id="i", view=given)


def _attempt(node: str = "n1", code: str | None = None, **more: Any) -> dict[str, Any]:
    error = {"code": code} if code else None
    return {
        "fence": 1,
        "node": node,
        "ending": "failed",
        "error": error,
        "released_at": 1.0,
        "started_at": 1.0,
        "ended_at": 9.0,
    } | more


def _failed(tool: str, code: str, failure: str = "maybe_started", mischief: str = "", **view: Any) -> Asked:
    error = {"code": code, "message": "", "failure": failure}
    return _asked(tool, "failed", mischief, **{"error": error, "attempts": [_attempt(code=code)], **view})


def _poison(*attempts: dict[str, Any]) -> Asked:
    return _failed(SAFE, "node_restarted", "poison", attempts=list(attempts))


def _done(times: int, at: float = 2.0, invocation: str | None = "i", key: str = "k", after: str = "") -> list[Mark]:
    return [Mark(key, what, invocation, at, after) for _ in range(times) for what in ("effect", "answer")]


def _final(call: Asked, **other: Any) -> Asked:
    assert call.view is not None
    call.final = call.view | other
    return call


def _cancelled(call: Asked, at: float = 3.0) -> Asked:
    call.cancel_sent, call.cancelled_at = True, at
    return call


def _later(state: str, call: Asked) -> list[Asked]:
    """A chain: the call before it, which ended so, and the call."""
    before = Asked("b", SAFE, "", id="x", view=None)
    before.view = _asked(SAFE, state, result={"content": [{"text": "b"}]}, ended_at=5.0).view
    call.follows = before
    return [before, call]


DEADLY = (_attempt(code="node_restarted"), _attempt(code="node_replaced"))
UNBORN = Asked("k", UNSAFE, "", id="i")
WRONG = [
    pytest.param(_asked(attempts=[_attempt(), _attempt()]), 2, (), "not safe to repeat, and done 2", id="twice"),
    pytest.param(_asked(SAFE, attempts=[_attempt(ending="disowned"), _attempt()]), 2, (), "1 attempts", id="unseen"),
    pytest.param(_asked(), 0, (), "its effect never happened", id="succeeded without an effect"),
    pytest.param(_asked(result={"content": [{"text": "other"}]}), 1, (), "answer of another call", id="other's answer"),
    pytest.param(_failed(SAFE, "tool_timeout"), 1, (), "safe to repeat, and ended failed", id="safe and failed"),
    pytest.param(_failed(SAFE, "tool_timeout", mischief="junk"), 1, (), "safe to repeat", id="failed after mere junk"),
    pytest.param(_failed(SAFE, "bad_result", mischief="crash"), 1, (), "nothing here leads to", id="strange code"),
    pytest.param(_asked(SAFE, "lost"), 1, (NODE_KILLED,), "safe to repeat, and lost", id="safe and lost"),
    pytest.param(
        _failed(UNSAFE, "server_unavailable", "not_started"), 1, (NODE_KILLED,), "not started, and its effect", id="lie"
    ),
    pytest.param(_failed(UNSAFE, "connection_lost"), 1, (), "explains it", id="failed without a cause"),
    pytest.param(_failed(UNSAFE, "connection_lost"), 1, (OTHER_NODE_KILLED,), "explains it", id="another node's fault"),
    pytest.param(_failed(UNSAFE, "connection_lost"), 1, (LONG_AGO,), "explains it", id="a fault long ago"),
    pytest.param(_failed(UNSAFE, "connection_lost"), 1, (REDIS_PAUSED,), "explains it", id="no fault of servers"),
    pytest.param(_asked(UNSAFE, "lost"), 0, (), "lost, and no fault", id="lost without a fault"),
    pytest.param(
        _asked(UNSAFE, "lost", attempts=[_attempt(code="node_lost")]), 1, (REDIS_PAUSED,), "lost, and no", id="by Redis"
    ),
    pytest.param(_asked(UNSAFE, "lost", attempts=[]), 0, (NODE_KILLED,), "lost, and no", id="lost without a node"),
    pytest.param(
        _poison(*(_attempt(code="node_replaced", started_at=None) for _ in range(2))),
        0, (NODE_KILLED,), "poison after 0 deaths", id="poison that was never started",
    ),
    pytest.param(
        _poison(*(_attempt(code="node_restarted", started_at=None) for _ in range(2))),
        0, (NODE_KILLED,), "poison, and never started", id="poison without an effect",
    ),
    pytest.param(_failed(UNSAFE, "node_restarted", "poison"), 1, (), "not safe to repeat, and failed", id="not poison"),
    pytest.param(_poison(DEADLY[0]), 1, (NODE_KILLED,), "poison after 1 deaths", id="one death"),
    pytest.param(_poison(*DEADLY), 2, (), "no fault of its nodes", id="poison without a fault"),
    pytest.param(_asked(UNSAFE, "cancelled", attempts=[]), 0, (), "nobody asked for that", id="cancelled by nobody"),
    pytest.param(_asked(UNSAFE, "expired", attempts=[]), 0, (), "nobody asked for that", id="expired too soon"),
    pytest.param(
        _cancelled(_asked(UNSAFE, "cancelled", attempts=[])), 1, (), "never released to a node", id="cancelled, and ran"
    ),
    pytest.param(
        _cancelled(_asked(UNSAFE, "cancelled", attempts=[_attempt(ending="disowned")])),
        1, (), "by attempts that never started", id="cancelled after it was handed back, and ran",
    ),
    pytest.param(
        _cancelled(_asked(SAFE, attempts=[_attempt(), _attempt(released_at=5.0)])),
        1, (), "after its cancel was confirmed", id="released after its cancel",
    ),
    pytest.param(_asked(UNSAFE, "waiting"), 0, (), "still waiting", id="without an end"),
    pytest.param(Asked("k", UNSAFE, ""), 0, (), "never accepted", id="never accepted"),
    pytest.param(UNBORN, 0, (), "nobody knows it", id="forgotten"),
    pytest.param(_final(_asked(), state="lost"), 1, (NODE_KILLED,), "ended twice: state", id="another end"),
    pytest.param(_final(_asked(), ended_at=8.0), 1, (), "ended twice: ended_at", id="ended at another time"),
    pytest.param(_final(_asked(), fence=2), 1, (), "ended twice: fence", id="ended by another attempt"),
    pytest.param(_final(_asked(), attempts=[_attempt("n2")]), 1, (), "its attempts were", id="another attempt"),
    pytest.param(_final(_asked(), result=None), 1, (), "ended twice: result", id="its result is gone"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "effects", "troubles", "words"), WRONG)
def test_the_books_notice(call: Asked, effects: int, troubles: tuple[Trouble, ...], words: str) -> None:
    """Each promise, broken once."""
    found = check([call], Evidence(_done(effects), troubles)).violations
    assert any(words in sentence for sentence in found), found


FROM_ELSEWHERE = [
    pytest.param([_asked()], _done(1, invocation="other"), "under the id other", id="id of another call"),
    pytest.param([_asked()], [*_done(1), *_done(1, invocation=None)], "under the id None", id="without an id"),
    pytest.param([_asked()], _done(1, at=20.0), "after it had succeeded", id="after the end"),
    pytest.param([_asked()], _done(1, at=-5.0), "before it was released", id="before its release"),
    pytest.param([_asked()], _done(1)[:1], "its tool never answered", id="an answer that nobody gave"),
    pytest.param([], _done(1, key="x"), "that nobody asked for", id="nobody's"),
    pytest.param(_later("failed", _asked()), _done(1), "accepted, though the call before it", id="after a failure"),
    pytest.param(_later("succeeded", UNBORN), [], "nobody knows it", id="a chain that stopped"),
    pytest.param(_later("succeeded", _asked()), _done(1, after="b"), "before the call before it", id="too early"),
    pytest.param(_later("succeeded", _asked()), _done(1, at=6.0, after="c"), "handed {'c'}", id="another's result"),
]


@pytest.mark.parametrize(("calls", "marks", "words"), FROM_ELSEWHERE)
def test_the_books_notice_what_tools_tell(calls: Sequence[Asked], marks: Sequence[Mark], words: str) -> None:
    """Of ids, times, and what a chain hands on."""
    found = check(calls, Evidence(marks)).violations
    assert any(words in sentence for sentence in found), found


RIGHT = [
    pytest.param(_asked(), 1, (), id="once"),
    pytest.param(_asked(SAFE, attempts=[_attempt() for _ in range(3)]), 3, (), id="safe, more than once"),
    pytest.param(
        _asked(UNSAFE, "lost", attempts=[_attempt(code="node_lost")]), 1, (NODE_KILLED,), id="lost, and it had happened"
    ),
    pytest.param(_failed(UNSAFE, "connection_lost"), 0, (NODE_KILLED,), id="its node was killed"),
    pytest.param(_failed(UNSAFE, "connection_lost", mischief="crash"), 1, (), id="its own mischief"),
    pytest.param(_failed(UNSAFE, "blob_unavailable", "not_started"), 0, (REDIS_PAUSED,), id="what nodes share"),
    pytest.param(_failed(SAFE, "connection_lost", mischief="crash"), 1, (), id="a tool that kills its server"),
    pytest.param(_poison(*DEADLY), 2, (NODE_KILLED,), id="poison"),
    pytest.param(_cancelled(_asked(UNSAFE, "cancelled")), 1, (), id="cancelled while it ran"),
    pytest.param(_cancelled(_asked(UNSAFE, "cancelled", attempts=[])), 0, (), id="cancelled while it waited"),
    pytest.param(_cancelled(_asked()), 1, (), id="cancelled too late"),
    pytest.param(_final(_asked()), 1, (), id="the same end again"),
]


@pytest.mark.parametrize(("call", "effects", "troubles"), RIGHT)
def test_the_books_do_not_cry_wolf(call: Asked, effects: int, troubles: tuple[Trouble, ...]) -> None:
    """What the promises allow is no violation."""
    assert check([call], Evidence(_done(effects), troubles)).violations == []


def test_another_call_may_take_down_the_server_of_both() -> None:
    """Its mischief explains the failure of what was in that server at the time, and of nothing earlier."""
    crash = Asked("c", SAFE, "crash", id="c", view=_failed(SAFE, "connection_lost").view)
    marks = [*_done(1), *_done(1, key="c", invocation="c")]
    earlier = _failed(UNSAFE, "connection_lost")
    assert check([_failed(UNSAFE, "connection_lost"), crash], Evidence(marks)).violations == []
    assert earlier.view is not None
    earlier.view["attempts"][0] |= {"released_at": 0.1, "ended_at": 0.5, "started_at": 0.2}
    assert "explains it" in check([earlier, crash], Evidence(marks)).violations[0]


def test_a_chain_in_order_is_right() -> None:
    """A later call after its predecessor's success, or none after its failure."""
    marks = [*_done(1, at=6.0, after="b"), *_done(1, key="b", invocation="x")]
    assert check(_later("succeeded", _asked()), Evidence(marks)).violations == []
    before, _ = _later("cancelled", Asked("k", UNSAFE, "", id="i"))
    assert check([_cancelled(before)], Evidence([])).violations == []


def test_clocks_that_were_set_are_not_compared() -> None:
    """The marks are written by the clock that was set."""
    assert check([_asked()], Evidence(_done(1, at=300.0), is_clock_true=False)).violations == []


@pytest.mark.parametrize(
    ("call", "letters"),
    [(_asked(), {"i": 1}), (_failed(UNSAFE, "node_drained"), {}), (_asked(UNSAFE, "lost"), {"i": 2})],
)
def test_whatever_ends_badly_has_one_dead_letter(call: Asked, letters: dict[str, int]) -> None:
    """And nothing else has any."""
    found = check([call], Evidence(_done(1), letters=letters)).violations
    assert any("dead letters" in sentence for sentence in found), found


def test_a_dead_letter_is_replayed_once() -> None:
    """However often it is asked for, and as the call it was."""
    again = Asked("k", UNSAFE, "", id="r", view=_asked(replay_of="i").view, replay_of="i")
    calls = [_failed(UNSAFE, "connection_lost"), again]
    marks = [*_done(1), *_done(1, invocation="r")]
    once = Evidence(marks, (NODE_KILLED,), replays={"i": frozenset({"r"})})
    twice = Evidence(marks, (NODE_KILLED,), replays={"i": frozenset({"r", "s"})})
    assert check(calls, once).violations == []
    assert check(calls, twice).violations == ["dead letter i was replayed as 2 calls"]
    again.replay_of = "other"
    assert "a replay of i, and other was asked for" in check(calls, once).violations[0]


GONE = Trouble("n1", "node vanishes", 4.0, 14.0, is_loss=True)


def _moved(started_at: float, **first: Any) -> Asked:
    before = _attempt("n1", "node_lost", **{"released_at": 1.0, "ended_at": 9.0, "ending": "superseded", **first})
    after = _attempt("n2", released_at=9.0, started_at=started_at, ending="succeeded", ended_at=started_at)
    return _asked(SAFE, attempts=[before, after], ended_at=started_at)


def test_failover_counts_from_the_loss_to_the_next_start_elsewhere() -> None:
    """And only for what the node held."""
    calls = [_moved(10.0), _moved(4.5, ended_at=3.0)]
    assert [each.took_s for each in check(calls, Evidence(_done(1), [GONE])).failovers] == [6.0]


def test_a_failover_over_the_limit_is_a_violation() -> None:
    """Unless what all nodes share was hurt meanwhile: then it is only reported."""
    alone = check([_moved(40.0)], Evidence(_done(1, at=41.0), [GONE]))
    stretched = check([_moved(40.0)], Evidence(_done(1, at=41.0), [GONE, REDIS_PAUSED]))
    assert any("only 36.0 s after" in sentence for sentence in alone.violations), alone.violations
    assert stretched.violations == []
    assert [each.took_s for each in stretched.failovers] == [36.0]

"""The books after a run: what callers were told beside what the tools did. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.traffic import TERMINAL, Asked

POISON_DEATHS = 2


@dataclass
class Books:
    """What a run came to.

    Attributes:
        violations: promises that were broken, one sentence each.
        states: how calls ended.
        failovers_s: for each call that a node took with it, the time from the fault to its next start.
    """

    violations: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    lost: int = 0
    failovers_s: list[float] = field(default_factory=list)


def check(
    asked: Sequence[Asked], effects: Mapping[str, int], gone_at: Mapping[str, Sequence[float]], back_after_s: float
) -> Books:
    """Compare what callers know with what the tools did.

    Args:
        asked: every call, with the last view its caller had of it.
        effects: key → how often its effect happened.
        gone_at: node → wall clock at which it vanished.
        back_after_s: a node that vanished stays away at least so long.
    """
    books = Books()
    for call in asked:
        books.violations += [f"{call.key} ({call.tool} {call.mischief}): {words}" for words in _wrong(call, effects)]
        if call.view is None:
            continue
        books.states[call.view["state"]] += 1
        books.lost += call.view["state"] == "lost"
        books.repeated += effects.get(call.key, 0) > 1
        books.failovers_s += _failovers(call, gone_at, back_after_s)
    strangers = effects.keys() - {call.key for call in asked}
    books.violations += [f"{key}: an effect that nobody asked for" for key in strangers]
    return books


def _wrong(call: Asked, effects: Mapping[str, int]) -> list[str]:
    done = effects.get(call.key, 0)
    found = []
    if not call.is_safe and done > 1:
        found.append(f"not safe to repeat, and done {done} times")
    if call.id is None:
        return [*found, "never accepted"]
    if call.view is None:
        return [*found, f"accepted as {call.id}, and nobody knows it"]
    if call.view["state"] not in TERMINAL:
        endings = [attempt["ending"] for attempt in call.view["attempts"]]
        return [*found, f"accepted as {call.id} and still {call.view['state']}; attempts: {endings}"]
    return [*found, *_untrue(call, call.view, done)]


def _untrue(call: Asked, view: dict[str, Any], done: int) -> list[str]:
    """What is wrong with how it ended."""
    state, found = view["state"], []
    if state == "succeeded":
        if not done:
            found.append("succeeded, and its effect never happened")
        if _text(call) != call.key:
            found.append(f"succeeded with the answer of another call: {_text(call)!r}")
    elif call.is_safe and not call.mischief and not _is_poison(call):
        found.append(f"safe to repeat, and ended {state}: {view['error']}")
    if state == "lost" and call.is_safe:
        found.append("safe to repeat, and lost")
    if state == "lost" and not done and not any(attempt["node"] for attempt in view["attempts"]):
        found.append("lost, and never released to a node")
    if state in {"cancelled", "expired"}:
        found.append(f"{state}, and nobody asked for that")
    return found


def _is_poison(call: Asked) -> bool:
    """Two processes died while they ran it: then it is held to be the cause, which it may not have been."""
    assert call.view is not None
    codes = [(attempt["error"] or {}).get("code") for attempt in call.view["attempts"]]
    deaths = sum(code in {"node_restarted", "node_replaced"} for code in codes)
    return call.view["state"] == "failed" and deaths >= POISON_DEATHS


def _text(call: Asked) -> str | None:
    assert call.view is not None
    result = call.view["result"] or {}
    return next((block.get("text") for block in result.get("content", ())), None)


def _failovers(call: Asked, gone_at: Mapping[str, Sequence[float]], back_after_s: float) -> list[float]:
    """From the moment its node vanished to its start elsewhere."""
    assert call.view is not None
    attempts = call.view["attempts"]
    found = []
    for before, after in pairwise(attempts):
        for at in gone_at.get(before["node"] or "", ()):
            held = before["released_at"] <= at and (before["ended_at"] or at) >= at
            started = after["started_at"]
            if held and started is not None and at < started and after["node"] != before["node"]:
                is_of_this = (before["ended_at"] or started) - at < back_after_s + 20
                found += [started - at] if is_of_this else []
    return found

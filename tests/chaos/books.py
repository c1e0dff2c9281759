"""The books after a run: what callers were told beside what the tools did. Pure.

Owns what is looked at for every call, and the failovers; `ends.py` judges how each one ended.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.asked import TERMINAL, Asked
from tests.chaos.ends import LOSSES, UNSTARTED, wrong_end
from tests.chaos.evidence import EFFECT, Evidence, Mark

FAILOVER_S = 30.0
CLOCK_S = 1.0
"""Nodes know the orchestrator's clock to half a round trip."""
SAME = ("state", "fence", "ended_at", "result", "error")
"""Of an end: whoever asks again is told the same."""
AFTER_CHARS = 40
BADLY = frozenset({"failed", "expired", "lost"})


@dataclass(frozen=True, slots=True)
class Failover:
    """A call that a node took with it.

    Attributes:
        took_s: from the fault to its next start, on another node.
        is_stretched: something that nodes share was hurt meanwhile.
    """

    key: str
    took_s: float
    is_stretched: bool


@dataclass
class Books:
    """What a run came to.

    Attributes:
        violations: promises that were broken, one sentence each.
        states: how calls ended.
    """

    violations: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    cancelled: int = 0
    chained: int = 0
    failovers: list[Failover] = field(default_factory=list)


def check(asked: Sequence[Asked], evidence: Evidence) -> Books:
    """Compare what callers know with what the tools did, and with the faults that may excuse it.

    A failover counts from the moment a node vanished. It is a violation over 30 s, unless an orchestrator,
    Redis, the database or a sentinel was hurt meanwhile or within a lease before: a new leader gives every node
    a whole lease again, and nothing is released while they are away. Those are only reported.
    """
    books = Books()
    marks = _by_call(asked, evidence.marks)
    for call in asked:
        mine = marks[id(call)]
        words = [*_wrong(call, mine, evidence), *wrong_end(call, mine, asked, evidence)]
        books.violations += [f"{call.key} ({call.tool} {call.mischief}): {each}" for each in words]
        if call.last is None:
            continue
        books.states[call.last["state"]] += 1
        books.repeated += len(_effects(mine)) > 1
        books.cancelled += call.cancelled_at is not None
        books.chained += call.follows is not None
        books.failovers += _failovers(call, evidence)
    books.violations += _strangers(asked, evidence.marks)
    books.violations += [
        f"{each.key}: started elsewhere only {each.took_s:.1f} s after its node vanished"
        for each in books.failovers
        if each.took_s > FAILOVER_S and not each.is_stretched
    ]
    books.violations += [
        f"dead letter {letter} was replayed as {len(ids)} calls"
        for letter, ids in evidence.replays.items()
        if len(ids) != 1
    ]
    return books


def _by_call(asked: Sequence[Asked], marks: Iterable[Mark]) -> dict[int, list[Mark]]:
    """Marks of each call. One under a wrong id counts for every call with that key."""
    ids: dict[str, set[str | None]] = defaultdict(set)
    by_key: dict[str, list[Mark]] = defaultdict(list)
    for call in asked:
        ids[call.key].add(call.id)
    for mark in marks:
        by_key[mark.key].append(mark)
    return {
        id(call): [m for m in by_key[call.key] if m.invocation == call.id or m.invocation not in ids[call.key]]
        for call in asked
    }


def _strangers(asked: Sequence[Asked], marks: Iterable[Mark]) -> Iterator[str]:
    ids: dict[str, set[str | None]] = defaultdict(set)
    for call in asked:
        ids[call.key].add(call.id)
    for mark in marks:
        if mark.key not in ids:
            yield f"{mark.key}: an {mark.what} that nobody asked for"
        elif mark.invocation not in ids[mark.key]:
            yield f"{mark.key}: an {mark.what} under the id {mark.invocation} of another call"


def _wrong(call: Asked, marks: Sequence[Mark], evidence: Evidence) -> Iterator[str]:
    """Whatever its end."""
    done, view = len(_effects(marks)), call.last
    if not call.is_safe and done > 1:
        yield f"not safe to repeat, and done {done} times"
    if call.follows is not None and call.follows.state != "succeeded":
        if done or view is not None:
            yield f"accepted, though the call before it in the chain is {call.follows.state}"
        return
    if call.id is None:
        yield "never accepted"
    elif view is None:
        yield f"accepted as {call.id}, and nobody knows it"
    elif view["state"] not in TERMINAL:
        endings = [attempt["ending"] for attempt in view["attempts"]]
        yield f"accepted as {call.id} and still {view['state']}; attempts: {endings}"
    else:
        yield from _of_attempts(call, view, marks, evidence)
        yield from _of_chain(call, marks, evidence)
        yield from _said_later(call, evidence)


def _of_attempts(call: Asked, view: dict[str, Any], marks: Sequence[Mark], evidence: Evidence) -> Iterator[str]:
    """An effect belongs to an attempt that may have run it, and happens after that was released."""
    may_have = [one for one in view["attempts"] if one["ending"] not in UNSTARTED]
    effects = _effects(marks)
    if len(effects) > len(may_have):
        yield f"done {len(effects)} times, and {len(may_have)} attempts may have started"
    if not evidence.is_clock_true or not effects or not view["attempts"]:
        return
    released_at = min(one["released_at"] for one in view["attempts"])
    if effects[0].at < released_at - CLOCK_S:
        yield f"an effect {released_at - effects[0].at:.1f} s before it was released"
    is_only_one = len(may_have) == 1 or not call.is_safe
    if view["state"] == "succeeded" and is_only_one and effects[-1].at > view["ended_at"] + CLOCK_S:
        yield f"an effect {effects[-1].at - view['ended_at']:.1f} s after it had succeeded"
    if call.cancelled_at is not None:
        late = [one for one in view["attempts"] if one["released_at"] > call.cancelled_at + CLOCK_S]
        if late:
            yield f"released {late[0]['released_at'] - call.cancelled_at:.1f} s after its cancel was confirmed"


def _of_chain(call: Asked, marks: Sequence[Mark], evidence: Evidence) -> Iterator[str]:
    """After the one before it succeeded, and with its result."""
    before = call.follows
    if before is None or before.last is None:
        return
    wrong = {mark.after for mark in marks} - {before.answer[:AFTER_CHARS]}
    if wrong:
        yield f"was handed {wrong} instead of the result before it"
    early = [mark.at for mark in marks if mark.at < before.last["ended_at"] - CLOCK_S]
    if early and evidence.is_clock_true:
        yield f"an effect {before.last['ended_at'] - early[0]:.1f} s before the call before it had succeeded"


def _said_later(call: Asked, evidence: Evidence) -> Iterator[str]:
    """An end is said once, and stays."""
    first, final = call.view, call.final
    if first is not None and final is not None and first["ended_at"] is not None:
        changed = [name for name in SAME if first[name] != final[name]]
        if _attempts_of(first) != _attempts_of(final):
            yield f"its attempts were {_attempts_of(first)} and then {_attempts_of(final)}"
        if changed:
            told = "; ".join(f"{name} {str(first[name])[:80]} and then {str(final[name])[:80]}" for name in changed)
            yield f"ended twice: {told}"
    if evidence.letters is not None and call.last is not None:
        letters, due = evidence.letters.get(call.id or "", 0), int(call.last["state"] in BADLY)
        if letters != due:
            yield f"ended {call.last['state']} with {letters} dead letters"
    if call.replay_of is not None and call.last is not None and call.last["replay_of"] != call.replay_of:
        yield f"a replay of {call.last['replay_of']}, and {call.replay_of} was asked for"


def _attempts_of(view: dict[str, Any]) -> list[tuple[int, str, str, str | None]]:
    return [(one["fence"], one["node"], one["ending"], (one["error"] or {}).get("code")) for one in view["attempts"]]


def _effects(marks: Iterable[Mark]) -> list[Mark]:
    return sorted((mark for mark in marks if mark.what == EFFECT), key=lambda mark: mark.at)


def _failovers(call: Asked, evidence: Evidence) -> Iterator[Failover]:
    """From the moment its node vanished to its start elsewhere."""
    assert call.last is not None
    losses = [trouble for trouble in evidence.troubles if trouble.is_loss]
    shared = [trouble for trouble in evidence.troubles if not trouble.is_node]
    for before, after in pairwise(call.last["attempts"]):
        started = after["started_at"]
        is_taken = (before["error"] or {}).get("code") in LOSSES or before["ending"] in UNSTARTED
        if started is None or not is_taken or after["node"] == before["node"]:
            continue
        for loss in losses:
            at = loss.began_at
            held = before["released_at"] <= at <= (before["ended_at"] or at) and at < started
            if held and loss.target == before["node"]:
                is_stretched = any(trouble.touches(at, started, evidence.lease_s) for trouble in shared)
                yield Failover(call.key, started - at, is_stretched)

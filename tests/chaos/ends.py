"""Whether a call may have ended as it did: its end needs what happened, and a bad end needs a cause. Pure.

A cause is the call's own mischief, another call's that took down the server they shared, or a fault. A
fault counts from its beginning until its end and, since a lease must lapse and a grace pass before some of
it is seen, for lease plus grace longer (`Evidence.linger_s`). A node's fault counts for attempts on that
node; one of what nodes share (orchestrator, Redis, ledger) explains neither a server's failure nor a loss:
no lease lapses for it, and no server ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.chaos.asked import DEADLY, TERMINAL, Asked
from tests.chaos.evidence import ANSWER, EFFECT, Evidence, Mark

POISON_DEATHS, POISON_LOSSES = 2, 10
LOSSES = frozenset({"node_lost", "node_restarted", "node_replaced", "node_left"})
"""Codes of attempts that were lost with their node."""
UNSTARTED = frozenset({"disowned", "older_term", "handed_back", "unclaimed", "node_restarted", "node_left"})
"""Endings of attempts that are said to have surely never started."""
OF_SERVERS = frozenset({"connection_lost", "tool_timeout", "silent", "server_unavailable", "tool_unavailable"})
"""Codes that say what a node's MCP server did."""
OF_NODES = LOSSES | {"node_drained"}
UNEXPLAINED = frozenset(
    {"tool_error", "bad_result", "invalid_arguments", "unknown_tool", "result_too_large", "blob_missing", "node_error"}
)
"""Codes that no fault and no mischief of ours leads to."""
TAKES_SERVER = frozenset({"crash", "flood"})
"""Mischief that ends the server, with the calls of others in it."""


def wrong_end(call: Asked, marks: Sequence[Mark], asked: Sequence[Asked], evidence: Evidence) -> Iterator[str]:
    """What is wrong with how it ended."""
    view = call.last
    if call.id is None or view is None or view["state"] not in TERMINAL:
        return
    done = sum(mark.what == EFFECT for mark in marks)
    if view["state"] != "succeeded" and done and (why := _never_ran(call, view)):
        yield f"ended {view['state']}, {why}, and its effect happened"
    match view["state"]:
        case "succeeded":
            yield from _succeeded(call, view, marks)
        case "failed":
            yield from _failed(call, view, done, asked, evidence)
        case "lost":
            yield from _lost(call, view, evidence)
        case "cancelled" if call.cancel_sent:
            pass
        case state:
            yield f"{state}, and nobody asked for that"


def _never_ran(call: Asked, view: dict[str, Any]) -> str | None:
    """How it is said that it did not: by its error, or by each of its attempts."""
    if not call.is_safe and (view["error"] or {}).get("failure") == "not_started":
        return "not started"
    said = [one["ending"] in UNSTARTED or _was_told_unstarted(one) for one in view["attempts"]]
    if not all(said):
        return None
    return "by attempts that never started" if said else "never released to a node"


def _was_told_unstarted(attempt: dict[str, Any]) -> bool:
    """Its node ended it itself, and said no start with it."""
    return attempt["ending"] in {"cancelled", "expired"} and attempt["started_at"] is None


def _succeeded(call: Asked, view: dict[str, Any], marks: Sequence[Mark]) -> Iterator[str]:
    if not any(mark.what == EFFECT for mark in marks):
        yield "succeeded, and its effect never happened"
    elif not any(mark.what == ANSWER for mark in marks):
        yield "succeeded, and its tool never answered"
    text = next((block.get("text") for block in (view["result"] or {}).get("content", ())), None)
    if text != call.answer:
        yield f"succeeded with the answer of another call: {str(text)[:80]!r}"


def _failed(call: Asked, view: dict[str, Any], done: int, asked: Sequence[Asked], evidence: Evidence) -> Iterator[str]:
    error = view["error"] or {}
    code = error.get("code")
    if code in UNEXPLAINED:
        yield f"failed with {code}, which nothing here leads to: {error.get('message')}"
    elif error.get("failure") == "poison":
        yield from _poison(call, view, done, evidence)
    elif call.is_safe:
        if call.mischief not in DEADLY:
            yield f"safe to repeat, and ended failed: {error}"
    elif call.mischief not in DEADLY and not _has_cause(call, view, asked, evidence):
        yield f"failed, and neither its own mischief nor a fault explains it: {error}"


def _poison(call: Asked, view: dict[str, Any], done: int, evidence: Evidence) -> Iterator[str]:
    """Two processes died while they ran it: then it is held to be the cause, which it may not have been."""
    losses = [one for one in view["attempts"] if _code(one) in LOSSES]
    deaths = [one for one in losses if _is_death(one)]
    if not call.is_safe:
        yield "not safe to repeat, and failed as poison"
    if len(deaths) < POISON_DEATHS and len(losses) < POISON_LOSSES:
        yield f"failed as poison after {len(deaths)} deaths"
    if not done and not any(one["started_at"] for one in losses):
        yield "failed as poison, and never started"
    if not all(_was_hurt(one, evidence) for one in losses):
        yield "failed as poison, and no fault of its nodes explains that they were lost"


def _is_death(attempt: dict[str, Any]) -> bool:
    code = _code(attempt)
    return code == "node_restarted" or (code == "node_replaced" and attempt["started_at"] is not None)


def _lost(call: Asked, view: dict[str, Any], evidence: Evidence) -> Iterator[str]:
    if call.is_safe:
        yield "safe to repeat, and lost"
    elif not any(_code(one) in LOSSES and _was_hurt(one, evidence) for one in view["attempts"]):
        yield f"lost, and no fault of its node explains it: {view['error']}"


def _was_hurt(attempt: dict[str, Any], evidence: Evidence) -> bool:
    """A fault of its node touches it."""
    return any(
        trouble.target == attempt["node"] and trouble.touches(*_span(attempt), evidence.linger_s)
        for trouble in evidence.troubles
    )


def _has_cause(call: Asked, view: dict[str, Any], asked: Sequence[Asked], evidence: Evidence) -> bool:
    """The last attempt is the one that an unsafe call failed with."""
    if not view["attempts"]:
        return False
    last, code = view["attempts"][-1], (view["error"] or {}).get("code")
    if _was_hurt(last, evidence):
        return True
    if code in OF_SERVERS:
        return any(_took_server(other, last, evidence) for other in asked if other is not call)
    shared = [trouble for trouble in evidence.troubles if not trouble.is_node]
    return code not in OF_NODES and any(trouble.touches(*_span(last), evidence.linger_s) for trouble in shared)


def _took_server(other: Asked, attempt: dict[str, Any], evidence: Evidence) -> bool:
    """Another call's mischief ended the server that both were in; it may take a while to be there again."""
    if other.mischief not in TAKES_SERVER or other.last is None:
        return False
    from_, to = _span(attempt)
    linger_s = 0.0 if _code(attempt) == "connection_lost" else evidence.linger_s
    return any(
        one["node"] == attempt["node"] and _span(one)[0] <= to and _span(one)[1] + linger_s >= from_
        for one in other.last["attempts"]
    )


def _span(attempt: dict[str, Any]) -> tuple[float, float]:
    return attempt["released_at"], attempt["ended_at"] or attempt["released_at"]


def _code(attempt: dict[str, Any]) -> str | None:
    return (attempt["error"] or {}).get("code")

"""Settling: the end of an attempt and what becomes of its Invocation, exactly once.

A settlement takes only at the current fence, from the node the attempt belongs to, while the attempt
is outstanding. Successors and dead letters are written in the same transaction, only if it took.
Refuses to decide about retries: `tasks.retry` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog
from sqlalchemy import Boolean, Text, bindparam, false, func, insert, literal_column, not_, or_, select, update

from orchestrator.ledger.accept import insert_successors
from orchestrator.ledger.moves import settle_sources
from orchestrator.ledger.rows import error_json, storable
from orchestrator.ledger.spend import book
from orchestrator.ledger.tables import ATTEMPTS, DEAD_LETTERS, INVOCATIONS, is_still
from orchestrator.ledger.transaction import Hot, Tx
from orchestrator.ledger.values import Booking, Settled, Settlement
from tasks.errors import FleetError
from tasks.invocation import TERMINAL, State
from tasks.outcome import ErrorInfo, Failure, Outcome

_log = structlog.get_logger("mcpfleet.ledger")

_C, _A = INVOCATIONS.c, ATTEMPTS.c
_CURRENT = (
    _C.id == bindparam("p_id"),
    _C.fence == bindparam("p_fence"),
    or_(_C.node == bindparam("p_node"), bindparam("p_by_orchestrator", type_=Boolean)),
    or_(_C.node.is_(None), not_(bindparam("p_unclaimed", type_=Boolean))),
)
_END = {
    to: Hot(
        update(INVOCATIONS)
        .where(*_CURRENT, is_still(settle_sources(to)))
        .values(
            state=literal_column(f"'{to.value}'"),
            tries=_C.tries + bindparam("p_tries"),
            ended_at=bindparam("p_at"),
            ending=bindparam("p_ending"),
            result_json=bindparam("p_result_json"),
            result_blob=bindparam("p_result_blob"),
            error_json=bindparam("p_error_json"),
            capsule_blob=literal_column("NULL"),  # nobody goes on from it any more
        )
    )
    for to in sorted(TERMINAL)
}
_AGAIN = Hot(
    update(INVOCATIONS)
    .where(*_CURRENT, is_still(settle_sources(State.WAITING)), _C.cancel_requested == false())
    .values(
        state=literal_column(f"'{State.WAITING.value}'"),
        tries=_C.tries + bindparam("p_tries"),
        not_before=bindparam("p_not_before"),
    )
)
_UNREACHABLE = Hot(
    update(INVOCATIONS)
    .where(*_CURRENT, is_still(settle_sources(State.UNREACHABLE)))
    .values(state=literal_column(f"'{State.UNREACHABLE.value}'"))
)
_CLOSE_ATTEMPT = Hot(
    update(ATTEMPTS)
    .where(_A.invocation_id == bindparam("p_id"), _A.fence == bindparam("p_fence"))
    .values(
        started_at=func.coalesce(_A.started_at, bindparam("p_started_at")),
        ended_at=bindparam("p_at"),
        ending=bindparam("p_attempt_ending"),
        error_code=bindparam("p_error_code"),
        error_message=bindparam("p_error_message"),
    )
)
_STATE = Hot(select(_C.state, _C.cancel_requested).where(_C.id == bindparam("p_id")))
DEAD_LETTER = Hot(
    insert(DEAD_LETTERS)
    .from_select(
        ["invocation_id", "tool", "project", "tenant", "ending", "reason", "error_json", "ended_at"],
        select(
            _C.id,
            _C.tool,
            _C.project,
            _C.tenant,
            _C.state,
            bindparam("p_reason", type_=Text),
            func.coalesce(_C.error_json, bindparam("p_error_json", type_=Text)),
            _C.ended_at,
        ).where(_C.id == bindparam("p_id")),
    )
    .inline()
)


def settle(tx: Tx, asked: Sequence[Sequence[Settlement]]) -> list[list[Settled] | FleetError]:
    """Settle several callers' attempts in one transaction; each says whether it took.

    An Invocation whose cancel was asked for is not tried again: a settlement to WAITING then ends it
    as cancelled, and its `Settled.state` says so.
    """
    wanted = [one for ask in asked for one in ask]
    taken = _take(tx, wanted)
    missed = [index for index in range(len(wanted)) if index not in taken]
    answers: dict[int, Settled] = {}
    for index in missed:
        answers[index], instead = _look(tx, wanted[index])
        if instead is not None:
            taken[index] = instead
    _write_what_follows(tx, list(taken.values()))
    for index, one in taken.items():
        written = None if one is wanted[index] else one.outcome
        answers[index] = Settled(one.invocation_id, one.fence, took=True, state=one.to, outcome=written)
    for index, one in enumerate(wanted):
        if one.spent and one.node is not None:
            [booked] = book(tx, [Booking(one.invocation_id, one.fence, one.node, one.at, one.spent)])
            answers[index] = replace(answers[index], booked=booked)
    ordered = iter([answers[index] for index in range(len(wanted))])
    return [[next(ordered) for _ in ask] for ask in asked]


def _take(tx: Tx, wanted: Sequence[Settlement]) -> dict[int, Settlement]:
    """Run each kind of settlement for all its rows at once; those that took, by their index."""
    kinds: dict[State, list[int]] = {}
    for index, one in enumerate(wanted):
        kinds.setdefault(one.to, []).append(index)
    taken: dict[int, Settlement] = {}
    for to, indexes in kinds.items():
        counts = tx.counts(_statement(to), [_row(wanted[index]) for index in indexes])
        taken |= {index: wanted[index] for index, count in zip(indexes, counts, strict=True) if count}
    return taken


def _statement(to: State) -> Hot:
    match to:
        case State.WAITING:
            return _AGAIN
        case State.UNREACHABLE:
            return _UNREACHABLE
        case _ if to in TERMINAL:
            return _END[to]
        case _:
            raise ValueError(f"a settlement cannot lead to {to}: use release or mark_started")


def _look(tx: Tx, one: Settlement) -> tuple[Settled, Settlement | None]:
    """Why it did not take; and, where only the asked-for cancel stood in its way, what took instead."""
    found = tx.all(_STATE, {"p_id": one.invocation_id})
    if not found:
        # An id that the ledger never knew: nothing can be done for it any more.
        return Settled(one.invocation_id, one.fence, took=False, state=State.LOST), None
    state, cancel_requested = found[0]
    refused = Settled(one.invocation_id, one.fence, took=False, state=State(state))
    if one.to is not State.WAITING or not cancel_requested:
        return refused, None
    instead = replace(one, to=State.CANCELLED, outcome=_cancelled(one.error), dead_reason=None)
    return refused, instead if tx.counts(_END[State.CANCELLED], [_row(instead)])[0] else None


def _cancelled(error: ErrorInfo | None) -> Outcome:
    after = f" after: {error.message}" if error else ""
    said = ErrorInfo("cancelled", f"a cancel was asked for, so it was not tried again{after}", Failure.PERMANENT)
    return Outcome(ending=State.CANCELLED.value, error=said)


def _write_what_follows(tx: Tx, taken: Sequence[Settlement]) -> None:
    tx.put(_CLOSE_ATTEMPT, [_attempt_row(one) for one in taken if one.to is not State.UNREACHABLE])
    dead = [one for one in taken if one.dead_reason is not None and one.to in TERMINAL]
    tx.put(
        DEAD_LETTER,
        [
            {"p_id": end.invocation_id, "p_reason": end.dead_reason, "p_error_json": error_json(end.error)}
            for end in dead
        ],
    )
    successors = [new for one in taken for new in one.successors]
    if successors and (left_out := insert_successors(tx, successors)):
        _log.warning("ledger.successors_known_already", ids=left_out)


def _row(one: Settlement) -> dict[str, object]:
    row: dict[str, object] = {
        "p_id": one.invocation_id,
        "p_fence": one.fence,
        "p_node": one.node,
        "p_by_orchestrator": one.node is None,
        "p_unclaimed": one.is_unclaimed,
    }
    if one.to is State.UNREACHABLE:
        return row
    row["p_tries"] = 1 if one.counts_try else 0
    if one.to is State.WAITING:
        return row | {"p_not_before": one.not_before}
    outcome = one.outcome or Outcome(ending=one.to.value, error=one.error)
    return row | {
        "p_at": one.at,
        "p_ending": outcome.ending,
        "p_result_json": outcome.result_json,
        "p_result_blob": outcome.result_blob,
        "p_error_json": error_json(outcome.error),
    }


def _attempt_row(one: Settlement) -> dict[str, object]:
    error = one.error
    return {
        "p_id": one.invocation_id,
        "p_fence": one.fence,
        "p_at": one.at,
        "p_started_at": one.started_at,
        "p_attempt_ending": one.attempt_ending,
        "p_error_code": None if error is None else error.code,
        "p_error_message": None if error is None else storable(error.message),
    }

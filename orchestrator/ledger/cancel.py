"""Ends that no node says: a cancel, and a deadline that passed while waiting.

What waits ends at once; what is outstanding is only asked to stop, since its node has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, literal_column, select, true, update

from orchestrator.ledger.moves import sources
from orchestrator.ledger.rows import error_json
from orchestrator.ledger.settle import DEAD_LETTER
from orchestrator.ledger.tables import INVOCATIONS, is_still
from orchestrator.ledger.transaction import Hot, Tx
from orchestrator.ledger.values import Cancelled
from tasks.errors import NotFound
from tasks.invocation import OUTSTANDING, State
from tasks.outcome import ErrorInfo, Failure

DEADLINE = "deadline"
"""The reason of a dead letter that was never released in time."""

_C = INVOCATIONS.c
_WAITING = frozenset({State.WAITING})
_LOOK = Hot(select(_C.tenant, _C.state, _C.node, _C.fence).where(_C.id == bindparam("p_id")).with_for_update())
_ASK = Hot(update(INVOCATIONS).where(_C.id == bindparam("p_id"), is_still(OUTSTANDING)).values(cancel_requested=true()))


def _ends_waiting(to: State) -> Hot:
    condition = [_C.id == bindparam("p_id"), is_still(sources(to, among=_WAITING))]
    if to is State.EXPIRED:
        condition.append(_C.expires_at <= bindparam("p_at"))
    return Hot(
        update(INVOCATIONS)
        .where(*condition)
        .values(
            state=literal_column(f"'{to.value}'"),
            ending=literal_column(f"'{to.value}'"),
            ended_at=bindparam("p_at"),
            error_json=bindparam("p_error_json"),
        )
    )


_CANCEL = _ends_waiting(State.CANCELLED)
_EXPIRE = _ends_waiting(State.EXPIRED)
_CANCELLED = error_json(ErrorInfo("cancelled", "cancelled while it waited; it was not at any node", Failure.PERMANENT))
_EXPIRED = error_json(
    ErrorInfo("deadline", "the deadline passed while it waited; give it more time, or add nodes", Failure.PERMANENT)
)


def cancel(tx: Tx, invocation_id: str, tenant: str | None, at: float) -> Cancelled:
    """End it if it waits, ask for its end if it is outstanding, say so if it is too late.

    Raises:
        NotFound: no such Invocation, or another tenant's.
    """
    found = tx.all(_LOOK, {"p_id": invocation_id})
    if not found or tenant not in {None, found[0][0]}:
        raise NotFound("invocation", invocation_id)
    _, was, node, fence = found[0]
    state = State(was)
    if state is State.WAITING:
        tx.put(_CANCEL, [{"p_id": invocation_id, "p_at": at, "p_error_json": _CANCELLED}])
        state = State.CANCELLED
    elif state in OUTSTANDING:
        tx.put(_ASK, [{"p_id": invocation_id}])
    return Cancelled(invocation_id, was=State(was), state=state, node=node, fence=fence)


def expire(tx: Tx, ids: Sequence[str], at: float) -> list[str]:
    """End what waits and is past its deadline, with a dead letter; the ids that took."""
    rows = [{"p_id": one, "p_at": at, "p_error_json": _EXPIRED} for one in ids]
    counts = tx.counts(_EXPIRE, rows)
    taken = [one for one, count in zip(ids, counts, strict=True) if count]
    tx.put(DEAD_LETTER, [{"p_id": one, "p_reason": DEADLINE, "p_error_json": _EXPIRED} for one in taken])
    return taken

"""Forgetting what ended long ago: a slice of rows at a time, in the order of acceptance.

Owns which rows may go: ended before a moment; with a dead letter that nobody answered, before an earlier
one. What has not ended stays, however old. Refuses to delete blobs: `orchestrator/retention.py` does.
"""

from __future__ import annotations

from sqlalchemy import Integer, and_, bindparam, delete, literal_column, select

from orchestrator.ledger.tables import APPROVALS, ATTEMPTS, DEAD_LETTERS, INVOCATIONS
from orchestrator.ledger.transaction import Hot, Tx
from orchestrator.ledger.values import Purge, Purged

_C, _D = INVOCATIONS.c, DEAD_LETTERS.c
# Along the primary key, with a bound on its length: an index on the end of calls would cost every call.
_SLICE = Hot(
    select(_C.seq, _C.id, _C.accepted_at, _C.ended_at, _D.seq)
    .join_from(INVOCATIONS, DEAD_LETTERS, and_(_D.invocation_id == _C.id, _D.replayed_as.is_(None)), isouter=True)
    .where(_C.seq > bindparam("p_after"))
    .order_by(_C.seq)
    .limit(bindparam("p_limit", type_=Integer))
    .offset(literal_column("0"))  # SQLite has no limit alone, and a bound 0 would be one more parameter
)
WITH_IT = tuple(
    Hot(delete(table).where(column == bindparam("p_id")))
    for table, column in (
        (ATTEMPTS, ATTEMPTS.c.invocation_id),
        (APPROVALS, APPROVALS.c.invocation_id),
        (DEAD_LETTERS, _D.invocation_id),
        (INVOCATIONS, _C.id),
    )
)


def purge(tx: Tx, wanted: Purge) -> Purged:
    """Look at the next slice and delete what may go, with its attempts, its approvals and its dead letter."""
    found = tx.all(_SLICE, {"p_after": wanted.after, "p_limit": wanted.limit})
    gone = [
        {"p_id": row_id}
        for _seq, row_id, _accepted_at, ended_at, letter in found
        if ended_at is not None and ended_at < (wanted.ended_before if letter is None else wanted.dead_before)
    ]
    if gone:
        for statement in WITH_IT:
            tx.put(statement, gone)
    is_last = len(found) < wanted.limit or found[-1][2] >= wanted.ended_before
    return Purged(len(gone), None if is_last else int(found[-1][0]))

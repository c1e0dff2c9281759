"""What was last saved of an agent's session: one digest per Invocation, of its current attempt or one before.

A compare-and-set like a settlement's: the current fence, from the node that the attempt belongs to, while it
is outstanding; and only a higher number, so that what is read twice changes nothing. Refuses to delete a blob.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, func, literal_column, select, update

from orchestrator.ledger.tables import INVOCATIONS, is_still
from orchestrator.ledger.transaction import Hot, Tx
from orchestrator.ledger.values import CapsuleKept, CapsuleSaved
from tasks.invocation import OUTSTANDING

_C = INVOCATIONS.c
_HELD = Hot(select(_C.capsule_blob).where(_C.id == bindparam("p_id")))
_KEEP = Hot(
    update(INVOCATIONS)
    .where(
        _C.id == bindparam("p_id"),
        _C.fence == bindparam("p_fence"),
        _C.node == bindparam("p_node"),
        is_still(OUTSTANDING),
        func.coalesce(_C.capsule_number, literal_column("0")) < bindparam("p_number"),
    )
    .values(capsule_blob=bindparam("p_blob"), capsule_number=bindparam("p_number"))
)


def keep_capsules(tx: Tx, wanted: Sequence[CapsuleSaved]) -> list[CapsuleKept]:
    """One after the other: two of one call may come together."""
    return [_keep(tx, one) for one in wanted]


def _keep(tx: Tx, one: CapsuleSaved) -> CapsuleKept:
    held = tx.all(_HELD, {"p_id": one.invocation_id})
    row = {
        "p_id": one.invocation_id,
        "p_fence": one.fence,
        "p_node": one.node,
        "p_number": one.number,
        "p_blob": one.blob,
    }
    if not tx.counts(_KEEP, [row])[0]:
        return CapsuleKept(took=False)
    return CapsuleKept(took=True, replaced=held[0][0])

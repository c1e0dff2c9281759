"""A NodeClaim as the ledger keeps it. What a row of a newer version says beyond is ignored."""

from __future__ import annotations

from functools import cache

from pydantic import TypeAdapter

from orchestrator.autoscaler.values import NodeClaim
from orchestrator.ledger.values import ClaimRow


def row_of(claim: NodeClaim) -> ClaimRow:
    """To be saved."""
    return ClaimRow(
        id=claim.id,
        pool=claim.pool,
        node=claim.node,
        state=claim.state.value,
        created_at=claim.created_at,
        state_at=claim.state_at,
        body_json=_form().dump_json(claim).decode(),
    )


def claim_of(row: ClaimRow) -> NodeClaim:
    """As it was saved."""
    return _form().validate_json(row.body_json)


@cache
def _form() -> TypeAdapter[NodeClaim]:
    return TypeAdapter(NodeClaim)

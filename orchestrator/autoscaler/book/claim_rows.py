"""A NodeClaim as the ledger keeps it: what is asked for by name, and the whole of it as text."""

from __future__ import annotations

from orchestrator.autoscaler.book.wire import dumps, loads
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
        body_json=dumps(claim),
    )


def claim_of(row: ClaimRow) -> NodeClaim:
    """As it was saved.

    Raises:
        UnreadableRecord: it is no claim.
    """
    return loads(NodeClaim, row.body_json)

"""A member as the ledger keeps it, and back."""

from __future__ import annotations

from orchestrator.ledger.values import NodeRow
from orchestrator.registry.member import Lease, Member
from tasks.health import HEALTHY, UNHEALTHY
from tasks.node import NodeState, Offer


def row_of(member: Member) -> NodeRow:
    """The durable part of a member."""
    return NodeRow(
        name=member.name,
        pool=member.offer.pool,
        incarnation=member.incarnation,
        term=member.lease.term,
        state=member.state,
        offer_json=member.offer.model_dump_json(),
        delivery_key=member.delivery_key.hex(),
        token_digest=member.token_digest,
        joined_at=member.joined_at,
        join_number=member.join_number,
        wish=member.wish,
    )


def member_of(row: NodeRow, *, now_s: float, lease_ttl_s: float) -> Member:
    """A node of an earlier orchestrator process, with a whole lease: nobody could serve its renewals.

    Args:
        row: as the ledger has it.
        now_s: monotonic clock.
        lease_ttl_s: of a lease.
    """
    return Member(
        offer=Offer.model_validate_json(row.offer_json),
        incarnation=row.incarnation,
        delivery_key=bytes.fromhex(row.delivery_key),
        token_digest=row.token_digest,
        lease=Lease(row.term, now_s + lease_ttl_s),
        joined_at=row.joined_at,
        known_since_s=now_s,
        state=NodeState(row.state),
        wish=NodeState(row.wish or NodeState.ACTIVE),
        join_number=row.join_number or 0,
        health=UNHEALTHY if row.state == NodeState.LOST else HEALTHY,
    )

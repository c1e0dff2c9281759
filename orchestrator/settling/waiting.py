"""What the dispatcher keeps of a waiting Invocation. Pure."""

from __future__ import annotations

from orchestrator.ledger.values import Waiting
from tasks.invocation import Invocation


def as_waiting(invocation: Invocation) -> Waiting:
    """What the dispatcher keeps of a waiting Invocation."""
    call = invocation.call
    return Waiting(
        id=invocation.id,
        tool=call.tool,
        project=call.project,
        tenant=invocation.principal.tenant,
        lane=invocation.lane,
        requires=call.requires,
        pool=call.pool,
        priority=call.priority,
        accepted_at=invocation.accepted_at,
        not_before=call.not_before,
        expires_at=call.expires_at,
        fence=invocation.fence,
        tries=invocation.tries,
        is_chained=bool(call.then),
        principal=invocation.principal,
    )

"""What the door tells the audit log: who was let in to change something, who was refused, what did not come off.

Owns which operations are audited: all that change something, but those named here. So an operation that somebody
adds is audited unless it is written down, with the reason, that it is not. The row is durable before the handler
begins; where it cannot be written, the act is not done. Refuses to know how rows are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import structlog

from orchestrator.api.operation import Ask, Operation
from orchestrator.ledger.audit_values import AuditEntry, Decision, Detail
from orchestrator.presented import Presented
from tasks.errors import FleetError
from tasks.invocation import Principal

UNAUDITED: Mapping[str, str] = {
    "call": "an ordinary call: the ledger has it, with its principal; MCPFLEET_AUDIT_CALLS for more",
    "call_many": "as call",
    "replay": "a new call, linked to the old in the ledger",
    "wait_for_many": "reads",
    "plan_scale": "reads",
    "verify_audit": "reads",
    "replay_scale": "reads",
    "renew": "every node, every two seconds",
    "claim": "a node's ordinary work: the ledger has whose attempt it is",
    "put_blob": "a part of an ordinary call",
}
"""Operations that change something, or look so, and get no row when they are allowed; and why. Refusals get one."""
SHOWN = frozenset({
    "answer", "expires_at", "groups", "is_dry", "is_paused", "kind", "lifetime_s", "name", "networks", "owner", "pool",
    "principal", "project", "role", "roles", "scopes", "state", "target", "tenant", "ttl_s", "until", "verdict",
})  # fmt: skip
"""Fields of bodies that a row shows. Only these: what is not known to be harmless is left out."""
REFUSALS = frozenset({401, 403, 429})
"""Statuses with which a handler itself refuses."""
log = structlog.get_logger("mcpfleet.audit")


class Audit(Protocol):
    """The audit log, as one writes it."""

    async def acted(self, entry: AuditEntry) -> int: ...
    async def refused(self, entry: AuditEntry) -> None: ...


def is_audited(operation: Operation) -> bool:
    """Whether each use of it is a row. Not where anybody may come without a token: a stranger could fill the disk."""
    return operation.method != "GET" and operation.scope is not None and operation.name not in UNAUDITED


class Auditor:
    """The door's side of the audit log."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def begins(self, operation: Operation, ask: Ask) -> int:
        """An act is about to begin; the number of its row.

        Raises:
            LedgerDown, EpochLost: it must not.
        """
        entry = entry_of(operation.name, Decision.ALLOWED, ask.principal, ask.presented, ask.trace_id)
        shown = _shown(ask)
        shown.pop("name", None)
        return await self._audit.acted(_with(entry, target=_target(ask), details=shown))

    async def failed(self, operation: Operation, ask: Ask, row: int, error: Exception) -> None:
        """It did not come off. Never raises: the caller's answer is decided."""
        code = error.code if isinstance(error, FleetError) else "internal"
        entry = entry_of(operation.name, Decision.FAILED, ask.principal, ask.presented, ask.trace_id)
        entry = _with(entry, target=_target(ask), reason=code, details={"of": row})
        try:
            await self._audit.acted(entry)
        except FleetError as unwritten:
            log.warning("audit_row_not_written", action=operation.name, of=row, error=unwritten.message)

    async def forbidden(self, operation: Operation, ask: Ask, error: FleetError) -> None:
        """Good credentials, and not for this."""
        entry = entry_of(operation.name, Decision.REFUSED, ask.principal, ask.presented, ask.trace_id)
        await self._audit.refused(_with(entry, target=_target(ask), reason=error.message))


def entry_of(action: str, decision: Decision, principal: Principal, shown: Presented, trace_id: str) -> AuditEntry:
    """Who, from where, with what."""
    return AuditEntry(
        action=action,
        decision=decision,
        actor=principal.id,
        tenant=principal.tenant,
        credential=principal.credential,
        peer=shown.peer or "",
        trace_id=trace_id,
    )


def _with(
    entry: AuditEntry, *, target: str = "", reason: str = "", details: Mapping[str, Detail] | None = None
) -> AuditEntry:
    return AuditEntry(
        entry.action, entry.decision, entry.actor, entry.tenant, entry.credential, entry.peer, target, reason,
        entry.trace_id, details or {},
    )  # fmt: skip


def _target(ask: Ask) -> str:
    """What the path names, or the body's `name`, or that of the node it offers."""
    offered = getattr(getattr(ask.body_or_none(), "offer", None), "name", "")
    return "/".join(ask.path.values()) or str(_shown(ask).get("name", offered))


def _shown(ask: Ask) -> dict[str, Detail]:
    """Harmless fields of the body and the query, and how many ids it names."""
    found: dict[str, Detail] = {}
    for model in (ask.body_or_none(), ask.query_or_none()):
        for name in () if model is None else type(model).model_fields:
            value = getattr(model, name)
            if name == "ids":
                found["ids"] = "all" if value is None else len(value)
            elif name in SHOWN and isinstance(value, str | int | bool):
                found[name] = value
            elif name in SHOWN and isinstance(value, float):
                found[name] = round(value)
            elif name in SHOWN and isinstance(value, list | tuple | set | frozenset):
                found[name] = " ".join(sorted(map(str, value)))
    return found

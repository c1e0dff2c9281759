"""Answers to questions of runs that come over MCP: in the audit log before they count.

The HTTP door has its own rows (`orchestrator/api/auditing.py`). Everything but `answer` passes through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.ledger.approval_values import ApprovalRow
from orchestrator.ledger.audit_values import AuditEntry, Decision
from tasks.approval import Verdict
from tasks.errors import FleetError
from tasks.invocation import Principal

ACTION = "answer_approval"


class Desk(Protocol):
    """Questions of runs to people."""

    def waiting(self, invocation_id: str) -> Sequence[ApprovalRow]: ...
    async def get(self, approval_id: str, principal: Principal) -> ApprovalRow: ...
    async def answer(
        self, approval_id: str, verdict: Verdict, arguments_sha256: str, reason: str, principal: Principal
    ) -> ApprovalRow: ...


class Log(Protocol):
    """The audit log."""

    async def write(self, *entries: AuditEntry) -> int: ...


class AuditedAnswers:
    """The desk, with a row for each answer."""

    def __init__(self, desk: Desk, log: Log) -> None:
        self._desk, self._log = desk, log
        self.waiting, self.get = desk.waiting, desk.get

    async def answer(
        self, approval_id: str, verdict: Verdict, arguments_sha256: str, reason: str, principal: Principal
    ) -> ApprovalRow:
        """Raises what the desk raises, and LedgerDown where no row could be written: then it does not count."""
        entry = AuditEntry(
            action=ACTION,
            decision=Decision.ALLOWED,
            actor=principal.id,
            tenant=principal.tenant,
            credential=principal.credential,
            target=approval_id,
            details={"verdict": verdict.value, "door": "mcp"},
        )
        row = await self._log.write(entry)
        try:
            return await self._desk.answer(approval_id, verdict, arguments_sha256, reason, principal)
        except FleetError as error:
            failed = AuditEntry(ACTION, Decision.FAILED, principal.id, principal.tenant, principal.credential,
                                target=approval_id, reason=error.code, details={"of": row})  # fmt: skip
            await self._log.write(failed)
            raise

"""Ordinary calls in the audit log, for tools that the operator names (`MCPFLEET_AUDIT_CALLS`).

Off by default: the ledger has every call already, and a row before each costs one more commit. Stands between the
fleet and its ledger, so that it is the same at every door; later calls of a chain are accepted by the ledger itself
and have no row of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from orchestrator.ledger.audit_values import AuditEntry, Decision, Detail
from orchestrator.ledger.values import Accepted, NewInvocation

ACTION = "call"


class Books(Protocol):
    """The ledger, where calls become durable."""

    async def accept(self, rows: Sequence[NewInvocation]) -> list[Accepted]: ...


class Log(Protocol):
    """The audit log."""

    async def write(self, *entries: AuditEntry) -> int: ...


class AuditedCalls:
    """Writes a row for each call of a named tool, then accepts."""

    def __init__(self, books: Books, log: Log, patterns: Sequence[str]) -> None:
        self._books, self._log, self._patterns = books, log, tuple(patterns)

    async def accept(self, rows: Sequence[NewInvocation]) -> list[Accepted]:
        """As the ledger does.

        Raises:
            LedgerDown: no row could be written, so nothing was accepted.
        """
        if entries := [_entry(row) for row in rows if self._names(row.invocation.call.tool)]:
            await self._log.write(*entries)
        return await self._books.accept(rows)

    def _names(self, tool: str) -> bool:
        return any(fnmatchcase(tool, pattern) for pattern in self._patterns)


def _entry(row: NewInvocation) -> AuditEntry:
    one = row.invocation
    details: dict[str, Detail] = {"tool": one.call.tool}
    if one.call.project is not None:
        details["project"] = one.call.project
    return AuditEntry(
        action=ACTION,
        decision=Decision.ALLOWED,
        actor=one.principal.id,
        tenant=one.principal.tenant,
        credential=one.principal.credential,
        target=one.id,
        trace_id=one.call.trace_id or "",
        details=details,
    )

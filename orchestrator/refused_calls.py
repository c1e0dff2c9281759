"""What the audit log says of calls over MCP: refusals, and who cancelled a call of somebody else.

Refused is by policy, for want of a scope, by a rate or a quota.

The HTTP door has its own rows (`orchestrator/api/auditing.py`). They are counted as all refusals are, so that a
flood of them is a few rows a minute. Owns what of a refused call a row says: never its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from orchestrator.front.ports import Fleet
from orchestrator.ledger.audit_values import AuditEntry, Decision, Detail
from tasks.errors import FleetError
from tasks.invocation import Call, Invocation, Principal

CALL, CANCEL = "call", "cancel"
REFUSALS = frozenset({401, 403, 429})
"""Statuses of what is permitted to somebody else, or at another time."""
SERVER_ERRORS = 500
"""The fleet's own fault, and not the caller's. Source: RFC 9110, 15.6."""
TOOLS_SHOWN = 3
log = structlog.get_logger("mcpfleet.audit")


class Log(Protocol):
    """The audit log."""

    async def write(self, *entries: AuditEntry) -> int: ...
    async def refused(self, entry: AuditEntry) -> None: ...


class Refusing:
    """Writes down what was refused, and what was done to what is somebody else's."""

    def __init__(self, log: Log, door: str) -> None:
        self._log, self._door = log, door

    async def note(self, action: str, principal: Principal, error: FleetError, target: str = "") -> None:
        """Of an error that is a refusal; of others nothing. Never raises."""
        if error.http_status not in REFUSALS:
            return
        details = {"code": error.code, "door": self._door}
        await self._log.refused(self._entry(action, Decision.REFUSED, principal, target, error.message, details))

    async def done(self, action: str, principal: Principal, target: str) -> None:
        """Of an act that came off. Never raises: it is done, and its caller is told so."""
        entry = self._entry(action, Decision.ALLOWED, principal, target, "", {"door": self._door})
        try:
            await self._log.write(entry)
        except FleetError as error:
            log.warning("audit_row_not_written", action=action, target=target, error=error.message)

    @staticmethod
    def _entry(  # noqa: PLR0917 - the fields of a row
        action: str, decision: Decision, principal: Principal, target: str, reason: str, details: Mapping[str, Detail]
    ) -> AuditEntry:
        return AuditEntry(
            action=action,
            decision=decision,
            actor=principal.id,
            tenant=principal.tenant,
            credential=principal.credential,
            target=target,
            reason=reason,
            details=details,
        )


class RefusedCalls:
    """The fleet as the MCP door uses it; what it refuses has a row. Everything else passes through."""

    def __init__(self, fleet: Fleet, log: Log, failed: Callable[[], None] = lambda: None) -> None:
        """`failed` is told of each call that the fleet could not take, which MCP says inside a 200."""
        self._fleet, self._refusing, self._failed = fleet, Refusing(log, "mcp"), failed
        self.get, self.wait, self.result_json = fleet.get, fleet.wait, fleet.result_json
        self.explain, self.events, self.tools, self.tool = fleet.explain, fleet.events, fleet.tools, fleet.tool

    @property
    def tools_version(self) -> int:
        """The fleet's."""
        return self._fleet.tools_version

    async def accept(self, calls: Sequence[Call], principal: Principal) -> list[Invocation]:
        """Raises what the fleet raises."""
        try:
            return await self._fleet.accept(calls, principal)
        except FleetError as error:
            if error.http_status >= SERVER_ERRORS:
                self._failed()
            tools = " ".join(one.tool for one in calls[:TOOLS_SHOWN])
            await self._refusing.note(CALL, principal, error, tools)
            raise

    async def cancel(self, invocation_id: str, principal: Principal) -> Invocation:
        """Raises what the fleet raises."""
        try:
            cancelled = await self._fleet.cancel(invocation_id, principal)
        except FleetError as error:
            await self._refusing.note(CANCEL, principal, error, invocation_id)
            raise
        if cancelled.principal.id != principal.id:  # one's own the ledger has; clients cancel those all day
            await self._refusing.done(CANCEL, principal, invocation_id)
        return cancelled

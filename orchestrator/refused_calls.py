"""Calls that are refused over MCP, in the audit log: by policy, for want of a scope, by a rate or a quota.

The HTTP door has its own rows (`orchestrator/api/auditing.py`). They are counted as all refusals are, so that a
flood of them is a few rows a minute. Owns what of a refused call a row says: never its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.front.ports import Fleet
from orchestrator.ledger.audit_values import AuditEntry, Decision
from tasks.errors import FleetError
from tasks.invocation import Call, Invocation, Principal

CALL, CANCEL = "call", "cancel"
REFUSALS = frozenset({401, 403, 429})
"""Statuses of what is permitted to somebody else, or at another time."""
TOOLS_SHOWN = 3


class Log(Protocol):
    """The audit log."""

    async def refused(self, entry: AuditEntry) -> None: ...


class Refusing:
    """Writes refusals down."""

    def __init__(self, log: Log, door: str) -> None:
        self._log, self._door = log, door

    async def note(self, action: str, principal: Principal, error: FleetError, target: str = "") -> None:
        """Of an error that is a refusal; of others nothing. Never raises."""
        if error.http_status not in REFUSALS:
            return
        entry = AuditEntry(
            action=action,
            decision=Decision.REFUSED,
            actor=principal.id,
            tenant=principal.tenant,
            credential=principal.credential,
            target=target,
            reason=error.message,
            details={"code": error.code, "door": self._door},
        )
        await self._log.refused(entry)


class RefusedCalls:
    """The fleet as the MCP door uses it; what it refuses has a row. Everything else passes through."""

    def __init__(self, fleet: Fleet, log: Log) -> None:
        self._fleet, self._refusing = fleet, Refusing(log, "mcp")
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
            tools = " ".join(one.tool for one in calls[:TOOLS_SHOWN])
            await self._refusing.note(CALL, principal, error, tools)
            raise

    async def cancel(self, invocation_id: str, principal: Principal) -> Invocation:
        """Raises what the fleet raises."""
        try:
            return await self._fleet.cancel(invocation_id, principal)
        except FleetError as error:
            await self._refusing.note(CANCEL, principal, error, invocation_id)
            raise

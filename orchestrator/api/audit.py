"""The audit log's own door: rows, checkpoints, the public key, and a checkpoint on demand.

A caller sees rows of its tenant; who sees the whole fleet sees all. A checkpoint is about all rows, so only those
see checkpoints. Refuses to write rows: `door.py` and the desks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.auditing import Audit
from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.problems import NotYours
from orchestrator.api.reply import Reply, listing, model
from orchestrator.ledger.audit_values import AuditFilter, AuditRow, CheckpointRow, Decision
from tasks.errors import NotFound
from tasks.invocation import FLEET_TENANT, Principal
from tasks.scopes import Scope
from tasks.wire import Page
from tasks.wire_audit import (
    AuditCheckView,
    AuditFindingView,
    AuditKeyView,
    AuditReportView,
    AuditRowView,
    CheckpointView,
)

PAGE_MAX = 1000
VERIFIED_WITHIN_S = 5.0
"""Whoever asks for a look waits so long for its end: some 50,000 rows."""


class Finding(Protocol):
    """One thing that is wrong."""

    @property
    def seq(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def do(self) -> str: ...


class Report(Protocol):
    """What a look at the whole log found."""

    @property
    def is_sound(self) -> bool: ...
    @property
    def rows(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def signed_up_to(self) -> int: ...
    @property
    def checkpoints(self) -> int: ...
    @property
    def findings(self) -> Sequence[Finding]: ...
    @property
    def unnamed(self) -> int: ...


class Check(Protocol):
    """How a look at the whole log stands."""

    @property
    def is_running(self) -> bool: ...
    @property
    def began_at(self) -> float | None: ...
    @property
    def ended_at(self) -> float | None: ...
    @property
    def rows(self) -> int: ...
    @property
    def report(self) -> Report | None: ...
    @property
    def error(self) -> str: ...


class Checks(Protocol):
    """Looks at the whole log, one at a time."""

    def begin(self) -> None: ...
    def state(self) -> Check: ...
    async def ended(self, within_s: float) -> None: ...


class Log(Audit, Protocol):
    """The audit log, as one reads and writes it."""

    async def listing(
        self, where: AuditFilter, cursor: str | None, limit: int
    ) -> tuple[list[AuditRow], str | None]: ...
    async def oldest(self, where: AuditFilter, cursor: str | None, limit: int) -> tuple[list[AuditRow], str | None]: ...
    async def checkpoints(self) -> list[CheckpointRow]: ...
    async def checkpoint(self) -> CheckpointRow | None: ...
    @property
    def checks(self) -> Checks: ...
    def public_key(self) -> tuple[str, str]: ...


class AuditQuery(BaseModel):
    """Which rows, newest first unless said otherwise."""

    model_config = ConfigDict(extra="forbid")
    actor: str | None = Field(None, max_length=256, description="the id of who did it")
    action: str | None = Field(None, max_length=256, description="what was done, or how that begins: `node.`")
    target: str | None = Field(None, max_length=256, description="what it was done to")
    decision: Decision | None = Field(None, description="how it was decided")
    since: float | None = Field(
        None, ge=0, lt=1e11, allow_inf_nan=False, description="at or after, seconds since the epoch"
    )
    until: float | None = Field(None, ge=0, lt=1e11, allow_inf_nan=False, description="before, seconds since the epoch")
    oldest_first: bool = Field(
        default=False, description="in the order of writing, as `mcpfleet audit verify` reads it"
    )
    cursor: str | None = Field(None, min_length=1, max_length=200, description="`next` of the page before")
    limit: int = Field(50, ge=1, le=PAGE_MAX)


class AuditDoor:
    """Rows, checkpoints, the key."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        return (
            Operation("GET", "/v1/audit", "list_audit", Scope.AUDIT_READ, "The audit log", self.list,
                      {200: Answer("one page", Page[AuditRowView])}, query=AuditQuery, tag="audit"),
            Operation("GET", "/v1/audit/checkpoints", "audit_checkpoints", Scope.AUDIT_READ,
                      "Signed checkpoints of the audit log", self.checkpoints,
                      {200: Answer("all of them", Page[CheckpointView])}, tag="audit"),
            Operation("POST", "/v1/audit/checkpoints", "audit_checkpoint", Scope.AUDIT_READ,
                      "Sign the newest row of the audit log now", self.checkpoint,
                      {201: Answer("the checkpoint", CheckpointView)}, errors=(404,), tag="audit"),
            Operation("POST", "/v1/audit:verify", "verify_audit", Scope.AUDIT_READ,
                      "Look at every row of the audit log, and what was signed", self.verify,
                      {200: Answer("what was found, or that it goes on", AuditCheckView)}, tag="audit"),
            Operation("GET", "/v1/audit:verify", "audit_check", Scope.AUDIT_READ,
                      "How the look at the audit log stands that began last", self.standing,
                      {200: Answer("as it stands", AuditCheckView)}, tag="audit"),
            Operation("GET", "/v1/audit/key", "audit_key", Scope.AUDIT_READ,
                      "The public key of the audit log's checkpoints", self.key,
                      {200: Answer("the key", AuditKeyView)}, tag="audit"),
        )  # fmt: skip

    async def list(self, ask: Ask) -> Reply:
        """GET /v1/audit."""
        asked = ask.query(AuditQuery)
        where = AuditFilter(
            tenant=None if sees_fleet(ask.principal) else ask.principal.tenant,
            actor=asked.actor,
            action=asked.action,
            target=asked.target,
            decision=None if asked.decision is None else asked.decision.value,
            since_us=_us(asked.since),
            until_us=_us(asked.until),
        )
        pages = self._log.oldest if asked.oldest_first else self._log.listing
        rows, cursor = await pages(where, asked.cursor, asked.limit)
        return listing([AuditRowView(**asdict(row)) for row in rows], cursor)

    async def checkpoints(self, ask: Ask) -> Reply:
        """GET /v1/audit/checkpoints."""
        _whole(ask.principal)
        return listing([CheckpointView(**asdict(row)) for row in await self._log.checkpoints()])

    async def checkpoint(self, ask: Ask) -> Reply:
        """POST /v1/audit/checkpoints."""
        _whole(ask.principal)
        signed = await self._log.checkpoint()
        if signed is None:
            raise NotFound("row of the audit log", "newest")
        return model(CheckpointView(**asdict(signed)), status=201)

    async def verify(self, ask: Ask) -> Reply:
        """POST /v1/audit:verify. Of a long log the answer is that it goes on: one look at a time, beside the loop."""
        _whole(ask.principal)
        self._log.checks.begin()
        await self._log.checks.ended(VERIFIED_WITHIN_S)
        return model(_check_view(self._log.checks.state()))

    async def standing(self, ask: Ask) -> Reply:
        """GET /v1/audit:verify."""
        _whole(ask.principal)
        return model(_check_view(self._log.checks.state()))

    async def key(self, _ask: Ask) -> Reply:
        """GET /v1/audit/key."""
        key, pem = self._log.public_key()
        return model(AuditKeyView(key=key, pem=pem))


def _check_view(check: Check) -> AuditCheckView:
    return AuditCheckView(
        is_running=check.is_running,
        began_at=check.began_at,
        ended_at=check.ended_at,
        rows=check.rows,
        report=None if check.report is None else _report_view(check.report),
        error=check.error,
    )


def _report_view(report: Report) -> AuditReportView:
    return AuditReportView(
        is_sound=report.is_sound,
        rows=report.rows,
        first=report.first,
        last=report.last,
        signed_up_to=report.signed_up_to,
        checkpoints=report.checkpoints,
        findings=[AuditFindingView(seq=one.seq, text=one.text, do=one.do) for one in report.findings],
        unnamed=report.unnamed,
    )


def sees_fleet(principal: Principal) -> bool:
    """Whether rows of all tenants are this principal's to see: those of the fleet's own tenant, with `audit:read`."""
    return principal.tenant == FLEET_TENANT


def _whole(principal: Principal) -> None:
    if not sees_fleet(principal):
        raise NotYours("a checkpoint is about the rows of all tenants; it takes somebody who may see the whole fleet")


def _us(at_s: float | None) -> int | None:
    return None if at_s is None else round(at_s * 1e6)

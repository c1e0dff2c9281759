"""AuthGuardian, put together: its book, its door, and what it asks of policies and of the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Protocol

import structlog

from orchestrator.audit.log import AuditLog
from orchestrator.core import Core, Stores
from orchestrator.front.grants import GuardFront
from orchestrator.front.ports import Verifier
from orchestrator.front.settings import FrontSettings
from orchestrator.grants.book import Book
from orchestrator.grants.decide import Question, Ruling
from orchestrator.grants.guardian import Guardian
from orchestrator.grants.ports import NoAudit
from orchestrator.grants.types import read_types
from orchestrator.happenings import Ended, Happening
from orchestrator.ledger.audit_values import AuditEntry, Decision
from orchestrator.ledger.grant_shelf import GrantRows
from orchestrator.ledger.grant_values import Asked
from orchestrator.policy import facts
from orchestrator.policy.desk import PolicyDesk
from orchestrator.policy.question import who
from orchestrator.refused_calls import Refusing
from orchestrator.settings import OrchestratorSettings
from tasks.errors import FleetError, NotFound
from tasks.grant import REVOKED
from tasks.invocation import TRUST_LEAST, Invocation, Principal
from tasks.node import RunGrantReply, RunGrantRequest
from tasks.scopes import Role

DETAIL_CHARS = 500
"""Of a justification or a reason, in the audit log; the book has all of it."""
RUN_TRUST = TRUST_LEAST
"""Of what an agent in a sandbox asks: it acts on what it has read."""
log = structlog.get_logger("mcpfleet.guard")


class CedarGrants:
    """The fleet's policies, asked whether a resource may be granted: `action grant` on `Resource`."""

    def __init__(self, policies: PolicyDesk) -> None:
        self._policies = policies

    def decide(self, question: Question) -> Ruling:
        """Of whoever asks. Without policies nothing is granted: what is free to call is not free to have."""
        if self._policies.folder is None:
            return Ruling(is_allowed=False)
        scope, risk = question.context["scope"], question.context["risk"]
        assert isinstance(scope, list)
        assert isinstance(risk, int)
        name = question.resource.removeprefix('Resource::"').removesuffix('"')
        asker = replace(who(question.principal), trust=question.trust)
        found = self._policies.decide(facts.may_be_granted(asker, name, risk, frozenset(scope)))
        return Ruling(found.is_allowed, found.rules, found.errors)


def guardian_of(settings: OrchestratorSettings, stores: Stores, policies: PolicyDesk) -> Guardian:
    """Without policies nothing is granted by policy; `guard_of` brings the audit.

    Raises:
        SettingsError: the file of resource types is wrong.
    """
    return Guardian(
        book=Book(store=GrantRows(stores.ledger), clock=stores.clock),
        types=read_types(settings.guard_file),
        policy=CedarGrants(policies),
        audit=NoAudit(),
        clock=stores.clock,
    )


class AuditedGrants:
    """Every decision of AuthGuardian in the fleet's audit log; without the record there is no token."""

    _DECISIONS: ClassVar = {"grant.granted": Decision.ALLOWED, "grant.denied": Decision.REFUSED}

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    async def note(self, act: str, by: str, tenant: str, about: Mapping[str, object]) -> None:
        """Durable when it returns.

        Raises:
            LedgerDown, EpochLost: nothing was written.
        """
        names = ("grant", "agent", "scope", "rules", "justification", "parent")
        details = {name: str(about[name])[:DETAIL_CHARS] for name in names if about.get(name)}
        entry = AuditEntry(
            act,
            self._DECISIONS.get(act, Decision.NOTED),
            by,
            tenant=tenant,
            credential=str(about.get("credential", "")),
            target=str(about.get("resource_type", "")),
            reason=str(about.get("reason", ""))[:DETAIL_CHARS],
            details=details,
        )
        await self._log.write(entry)


class Calls(Protocol):
    """The ledger."""

    async def get(self, invocation_id: str, tenant: str | None = None) -> Invocation: ...


class Acts(Protocol):
    """The audit log, for acts that may be many."""

    async def acted(self, entry: AuditEntry) -> int: ...


class StoppedCalls:
    """Of each call that was stopped because its grant was revoked: a row of the audit log, beside that of the revoking.

    Hears of calls' ends, so it is told after the ledger has them; a row that cannot be written is logged.
    """

    def __init__(self, calls: Calls, acts: Acts) -> None:
        self._calls, self._acts = calls, acts
        self._writing: set[asyncio.Task[None]] = set()

    def hear(self, happening: Happening) -> None:
        """Only ends with `grant_revoked` matter."""
        if not isinstance(happening, Ended) or happening.outcome is None or happening.outcome.error is None:
            return
        if happening.outcome.error.code == REVOKED:
            task = asyncio.create_task(self._note(happening, happening.outcome.error.message))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def settled(self) -> None:
        """Until what was heard is written."""
        await asyncio.gather(*self._writing)

    async def _note(self, ended: Ended, message: str) -> None:
        try:
            caller = (await self._calls.get(ended.invocation_id)).principal
            entry = AuditEntry(
                "grant.stopped_call",
                Decision.NOTED,
                caller.id,
                tenant=caller.tenant,
                credential=caller.credential,
                target=ended.tool,
                reason=message[:DETAIL_CHARS],
                details={"invocation": ended.invocation_id, "node": (ended.last and ended.last.node) or ""},
            )
            await self._acts.acted(entry)
        except FleetError as error:
            log.warning(
                "audit_row_not_written", action="grant.stopped_call", call=ended.invocation_id, error=str(error)
            )


class RunGuard:
    """AuthGuardian for runs of agents: each asks as whoever called it, and through the node that runs it."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def ask(self, node: str, said: RunGrantRequest) -> RunGrantReply:
        """Who called is read from the ledger; the node names only which of its own runs asks.

        Raises:
            NotFound: this process of that node does not run it.
        """
        core, run = self._core, said.run
        attempt = core.attempts.current(run.invocation, run.fence)
        if attempt is None or (attempt.node, attempt.incarnation) != (node, said.incarnation):
            raise NotFound("run", run.invocation)
        invocation = await core.stores.ledger.get(run.invocation)
        caller = invocation.principal
        # An agent, whatever the caller may do besides: what it reads must not move its caller's other powers.
        by = Principal(caller.id, caller.tenant, frozenset({Role.AGENT}), credential=f"run:{invocation.id}")
        if said.request is not None:
            answer = await core.guardian.again(said.request, by.id, by)
        else:
            asked = Asked(by.id, said.resource_type, said.justification, said.scope, parent=invocation.id)
            answer = await core.guardian.request(asked, by, RUN_TRUST)
        row = answer.row
        return RunGrantReply(
            id=row.id,
            status=str(row.state),
            token=answer.token,
            reason=row.reason,
            scope=tuple(row.scope.split()),
            expires_at=row.expires_at,
        )


def guard_of(settings: FrontSettings, core: Core, doors: Verifier) -> GuardFront:
    """Its door, which hears of every change."""
    guardian = core.guardian
    guard = GuardFront(guardian, doors, settings, core.stores.clock, types=guardian.types)
    guardian.on_change, guardian.audit = guard.changed, AuditedGrants(core.audit)
    guard.on_refused(Refusing(core.audit, "guard").note)
    core.happenings.listen(StoppedCalls(core.stores.ledger, core.audit).hear)
    return guard

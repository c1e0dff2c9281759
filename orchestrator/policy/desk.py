"""The policies in force, asked at every door and for every node.

Owns reading the folder again when it changes, what was used of quotas, and the answers. Without a folder nothing
is asked: everything within one's tenant and scopes is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import structlog

from orchestrator.ledger.guest import Guest, Place
from orchestrator.ledger.values import UsedRow, Waiting
from orchestrator.policy import facts
from orchestrator.policy.files import Folder, read
from orchestrator.policy.limits import Buckets, Usage, Used, check
from orchestrator.policy.question import FREE, Decision, Question, Who, who
from tasks.clock import Clock
from tasks.errors import Permanent, SettingsError
from tasks.invocation import Call, Invocation, Lane, Principal
from tasks.tool import ToolSpec

DAY_S = 86_400.0
GUESTS_KEPT = 10_000
log = structlog.get_logger("mcpfleet.policy")


class PolicyDenied(Permanent):
    """A policy says no."""

    code = "policy_denied"
    http_status = 403

    def __init__(self, principal: Principal, what: str, decision: Decision) -> None:
        super().__init__(
            f"{principal.id!r} of tenant {principal.tenant!r} may not {what}: {decision.why()}; "
            "`mcpfleet policy explain` shows what was asked"
        )
        self.rules = decision.rules


class Books(Protocol):
    """The ledger."""

    async def used(self, since: float) -> list[UsedRow]: ...


@dataclass(frozen=True, slots=True)
class _Guest:
    who: Who
    project: str | None
    decide: Callable[[Question], Decision] = field(compare=False, repr=False)

    def barred(self, place: Place) -> str | None:
        decision = self.decide(facts.may_use(self.who, place, self.project))
        return None if decision.is_allowed else decision.why()


class PolicyDesk:
    """What is permitted, and how much of it."""

    def __init__(self, *, folder: Path | None, books: Books, clock: Clock) -> None:
        """Reads the folder.

        Raises:
            SettingsError: it is wrong: an orchestrator does not start on half its policies.
        """
        self._path, self._books, self._clock = folder, books, clock
        self.on_change: Callable[[], None] = lambda: None
        """Told when other policies are in force."""
        self._folder: Folder | None = None if folder is None else read(folder)
        self._buckets, self._usage, self._day = Buckets(), Usage(), -1.0
        self.problem: str | None = None
        """Why the folder as it is now is not in force; None where it is."""
        self.version = 0
        """Grows with every change of what is in force."""
        self._guest = lru_cache(GUESTS_KEPT)(lambda one, project: _Guest(one, project, self.decide))

    @property
    def folder(self) -> Folder | None:
        """What is in force; None: nothing is asked."""
        return self._folder

    def decide(self, question: Question) -> Decision:
        """The answer of the policies in force."""
        return FREE if self._folder is None else self._folder.rules.decide(question)

    def sees(self, principal: Principal, spec: ToolSpec) -> bool:
        """Whether a tool is in this principal's list."""
        return self._folder is None or self.decide(facts.may_see(who(principal), spec)).is_allowed

    def guest_of(self, waiting: Waiting) -> Guest | None:
        """Whoever's call is to be placed; None where no policies are in force."""
        if self._folder is None or waiting.principal is None:
            return None
        guest: Guest = self._guest(who(waiting.principal), waiting.project)
        return guest

    def admit(self, calls: Sequence[Call], specs: Sequence[ToolSpec], principal: Principal) -> None:
        """Before calls become durable: permitted, within their rates, within their quotas. All, or none.

        Args:
            calls: of one request, those of their chains too.
            specs: each one's tool.
            principal: who asks.

        Raises:
            PolicyDenied, RateLimited, QuotaSpent
        """
        if self._folder is None:
            return
        asker = who(principal)
        for call, spec in zip(calls, specs, strict=True):
            decision = self.decide(facts.may_call(asker, spec, call.project, call.lane or spec.lane))
            if not decision.is_allowed:
                where = "" if call.project is None else f" in project {call.project}"
                raise PolicyDenied(principal, f"call {spec.name}{where}", decision)
        limits = self._folder.limits
        if limits.quotas:
            self._check_quotas(calls, specs, principal)
        if limits.rates:
            self._buckets.take(limits.rates, principal, (spec.name for spec in specs), self._clock.mono_s())

    def accepted(self, invocations: Iterable[Invocation]) -> None:
        """These are durable: they count."""
        if self._folder is None or not self._folder.limits.quotas:
            return
        for one in invocations:
            used = self._usage.by.setdefault((one.principal.tenant, one.call.project), Used())
            used.calls += 1
            used.runs += one.lane is Lane.AGENTS

    async def refresh(self) -> None:
        """Read again: the folder if it changed, and what was used. For a loop."""
        self._reload()
        if self._folder is None or not self._folder.limits.quotas:
            return
        day = self._today()
        rows = await self._books.used(day)
        self._day = day
        self._usage = Usage(
            {(row.tenant, row.project): Used(row.calls, row.tokens, row.cost_usd, row.runs) for row in rows}
        )

    def _today(self) -> float:
        now = self._clock.wall_s()
        return now - now % DAY_S

    def _check_quotas(self, calls: Sequence[Call], specs: Sequence[ToolSpec], principal: Principal) -> None:
        assert self._folder is not None
        if self._today() != self._day:
            self._day = self._today()
            for used in self._usage.by.values():
                used.calls, used.tokens, used.usd = 0, 0, 0.0
        left_s = self._day + DAY_S - self._clock.wall_s()
        for project in {call.project for call in calls}:
            ours = [(c, s) for c, s in zip(calls, specs, strict=True) if c.project == project]
            runs = sum((call.lane or spec.lane) is Lane.AGENTS for call, spec in ours)
            owner = (principal.tenant, project)
            check(self._folder.limits.quotas, self._usage, owner, calls=len(ours), runs=runs, day_left_s=left_s)

    def _reload(self) -> None:
        if self._path is None or self._folder is None:
            return
        try:
            found = read(self._path)
        except SettingsError as error:
            if error.message != self.problem:
                log.error(  # noqa: TRY400 - whoever wrote the file needs the sentence, not our stack
                    "policies_not_read", why=error.message, effect="those that were in force stay so"
                )
            self.problem = error.message
            return
        self.problem = None
        if found.digest != self._folder.digest:
            self._folder, self.version = found, self.version + 1
            log.info("policies_changed", files=found.files, policies=len(found.rules.ids), digest=found.digest[:12])
            self.on_change()

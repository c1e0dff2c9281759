"""The policies in force, asked at every door and for every node.

Owns reading the folder again when it changes, what was used of quotas, and the answers. Without a folder nothing
is asked: everything within one's tenant and scopes is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import structlog

from orchestrator.ledger.guest import Guest, Place
from orchestrator.ledger.values import UsedRow, Waiting
from orchestrator.policy import facts
from orchestrator.policy.files import Folder, read, stamp
from orchestrator.policy.limits import Asked, Buckets, Usage, Used, check
from orchestrator.policy.question import FREE, Decision, Question, Who, who
from tasks.clock import Clock
from tasks.errors import InvalidCall, Permanent, SettingsError
from tasks.invocation import Call, Lane, Principal
from tasks.tool import ToolSpec

DAY_S = 86_400.0
GUESTS_KEPT = 10_000
QUESTIONS_MAX = 1000
"""Of one request: Cedar takes a tenth of a second for so many new ones."""
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


class TooManyAtOnce(InvalidCall):
    """More to be judged than one request is worth."""

    code = "too_many_at_once"

    def __init__(self, count: int) -> None:
        super().__init__(
            f"the request asks for {count} different tools and projects, its chains' too, and {QUESTIONS_MAX} is the "
            "limit; send it in parts"
        )


def is_run(call: Call, spec: ToolSpec) -> bool:
    """Whether it is an agent's, whatever the caller says of its lane."""
    return Lane.AGENTS in {call.lane, spec.lane}


class Books(Protocol):
    """The ledger."""

    async def used(self, since: float) -> list[UsedRow]: ...


@dataclass(frozen=True, slots=True)
class _Guest:
    who: Who
    project: str | None
    call: Question | None
    """Whether it may call at all: asked again, because policies may have changed since it was accepted."""
    decide: Callable[[Question], Decision] = field(compare=False, repr=False)

    def barred(self, place: Place) -> str | None:
        decision = self.decide(facts.may_use(self.who, place, self.project))
        if decision.is_allowed and self.call is not None:
            decision = self.decide(self.call)
        return None if decision.is_allowed else decision.why()


class PolicyDesk:
    """What is permitted, and how much of it."""

    def __init__(
        self, *, folder: Path | None, books: Books, clock: Clock, tool: Callable[[str], ToolSpec | None]
    ) -> None:
        """Reads the folder.

        Raises:
            SettingsError: it is wrong: an orchestrator does not start on half its policies.
        """
        self._path, self._books, self._clock, self._tool = folder, books, clock, tool
        self.on_change: Callable[[], None] = lambda: None
        """Told when other policies are in force."""
        self._folder: Folder | None = None if folder is None else read(folder)
        self._seen: object = None
        self._buckets, self._usage, self._day = Buckets(), Usage(), -1.0
        self.problem: str | None = None
        """Why the folder as it is now is not in force; None where it is."""
        self.version = 0
        """Grows with every change of what is in force."""
        self._guest = lru_cache(GUESTS_KEPT)(lambda one, project, call: _Guest(one, project, call, self.decide))

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
        one, spec = who(waiting.principal), self._tool(waiting.tool)
        call = None if spec is None else facts.may_call(one, spec, waiting.project, waiting.lane)
        guest: Guest = self._guest(one, waiting.project, call)
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
        limits = self._folder.limits
        if limits.rates:  # first: what is refused so costs little
            self._buckets.take(limits.rates, principal, (spec.name for spec in specs), self._clock.mono_s())
        self._check_rules(calls, specs, principal)
        if limits.quotas:
            self._check_quotas([Asked(c.project, is_run(c, s)) for c, s in zip(calls, specs, strict=True)], principal)

    def _check_rules(self, calls: Sequence[Call], specs: Sequence[ToolSpec], principal: Principal) -> None:
        """Each tool in each project once, however many calls there are of it."""
        asker = who(principal)
        asked = {(s.name, c.project, is_run(c, s)): s for c, s in zip(calls, specs, strict=True)}
        if len(asked) > QUESTIONS_MAX:
            raise TooManyAtOnce(len(asked))
        for (name, project, is_agents), spec in asked.items():
            lane = Lane.AGENTS if is_agents else Lane.TOOLS
            decision = self.decide(facts.may_call(asker, spec, project, lane))
            if not decision.is_allowed:
                where = "" if project is None else f" in project {project}"
                raise PolicyDenied(principal, f"call {name}{where}", decision)

    async def refresh(self) -> None:
        """Read again: the folder if it changed, and what was used. For a loop."""
        await self._reload()
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

    def _check_quotas(self, asked: Sequence[Asked], principal: Principal) -> None:
        """They count at once, so that others who ask meanwhile find them; what was refused after all is read anew."""
        assert self._folder is not None
        if self._today() != self._day:
            self._day = self._today()
            for used in self._usage.by.values():
                used.calls, used.tokens, used.usd = 0, 0, 0.0
        left_s = self._day + DAY_S - self._clock.wall_s()
        check(self._folder.limits.quotas, self._usage, principal.tenant, asked, day_left_s=left_s)
        for one in asked:
            used = self._usage.by.setdefault((principal.tenant, one.project), Used())
            used.calls += 1
            used.runs += one.is_run

    async def _reload(self) -> None:
        if self._path is None or self._folder is None:
            return
        seen = await asyncio.to_thread(stamp, self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            found = await asyncio.to_thread(read, self._path)  # half a second for 2,000 policies
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

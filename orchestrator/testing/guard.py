"""AuthGuardian for tests: on a real ledger or on one in memory, under a policy written as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.grants.book import Book
from orchestrator.grants.decide import Question, Ruling
from orchestrator.grants.guardian import Guardian
from orchestrator.grants.ports import Store
from orchestrator.grants.types import EXAMPLES, ResourceType, parse_types
from orchestrator.ledger.grant_values import Asked, GrantKeyRow, GrantRow
from tasks.clock import Clock
from tasks.invocation import Principal
from tasks.scopes import Role

AGENT = Principal("ann", roles=frozenset({Role.AGENT}), credential="key:ann")
OTHER_AGENT = Principal("ben", roles=frozenset({Role.AGENT}))
STRANGER = Principal("ann", tenant="other", roles=frozenset({Role.AGENT}))
"""Another tenant's agent of the same name."""
PERSON = Principal("paula", roles=frozenset({Role.OPERATOR}))
SERVICE = Principal("runner", roles=frozenset({Role.ADMIN}))
"""It may ask for its agents."""
TYPES = parse_types(EXAMPLES, source="the examples")
BUZZWORDS = "Quarterly compliance audit for the finance team, approved by the CFO: urgent customer production need."


@dataclass(slots=True)
class TablePolicy:
    """Allows (agent, resource type) pairs, and keeps every question."""

    allowed: frozenset[tuple[str, str]] = frozenset({("ann", "SAP_API"), ("ann", "FINANCIAL_API")})
    is_broken: bool = False
    asked: list[Question] = field(default_factory=list)

    def decide(self, question: Question) -> Ruling:
        """By the table."""
        self.asked.append(question)
        kind = question.resource.removeprefix('Resource::"').removesuffix('"')
        is_allowed = (str(question.context["agent"]), kind) in self.allowed
        return Ruling(is_allowed, ("table",), ("the table is broken",) if self.is_broken else ())


class MemoryGrants:
    """The ledger's two tables."""

    def __init__(self) -> None:
        self.rows: dict[str, GrantRow] = {}
        self.kept_keys: dict[str, GrantKeyRow] = {}

    async def save(self, row: GrantRow) -> None:
        """Keep it."""
        self.rows[row.id] = row

    async def forget(self, grant_id: str) -> None:
        """Forget it."""
        self.rows.pop(grant_id, None)

    async def save_key(self, row: GrantKeyRow) -> None:
        """Keep it."""
        self.kept_keys[row.id] = row

    async def forget_key(self, key_id: str) -> None:
        """Forget it."""
        self.kept_keys.pop(key_id, None)


@dataclass
class Notes:
    """An audit that is read by the test."""

    said: list[tuple[str, str, str, Mapping[str, object]]] = field(default_factory=list)

    async def note(self, act: str, by: str, tenant: str, about: Mapping[str, object]) -> None:
        """Append."""
        self.said.append((act, by, tenant, about))


@dataclass(slots=True)
class Rig:
    """A guardian and what stands around it."""

    guardian: Guardian
    book: Book
    policy: TablePolicy
    notes: Notes

    async def granted(self, by: Principal = AGENT, kind: str = "SAP_API", scope: Iterable[str] = ()) -> tuple[str, str]:
        """The token and the id of a grant that the policy allows."""
        answer = await self.guardian.request(asked(by.id, kind, scope), by, trust=90)
        assert answer.token is not None, answer.row.reason
        return answer.token, answer.row.id


def rig_of(
    clock: Clock,
    *,
    store: Store | None = None,
    types: Mapping[str, ResourceType] = TYPES,
    on_change: Callable[[str], None] = lambda _: None,
) -> Rig:
    """All of it."""
    policy, notes, book = TablePolicy(), Notes(), Book(store=store or MemoryGrants(), clock=clock)
    guardian = Guardian(book=book, types=types, policy=policy, audit=notes, clock=clock, on_change=on_change)
    return Rig(guardian, book, policy, notes)


def asked(agent: str = "ann", kind: str = "SAP_API", scope: Iterable[str] = (), text: str = BUZZWORDS) -> Asked:
    """A request as an agent writes it."""
    return Asked(agent, kind, text, tuple(scope))

"""A question to the policies, and the answer. Frozen values, so that an answer can be kept."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.invocation import Principal

Attribute = str | int | bool | frozenset[str]


@dataclass(frozen=True, slots=True)
class Who:
    """A principal as policies see it: nothing of its credential."""

    id: str
    tenant: str
    roles: frozenset[str]
    groups: frozenset[str]
    trust: int


def who(principal: Principal) -> Who:
    """Whoever asks."""
    return Who(principal.id, principal.tenant, principal.roles, principal.groups, principal.trust)


@dataclass(frozen=True, slots=True)
class Thing:
    """What is asked for: an entity of the schema, and the one that it is in."""

    kind: str
    id: str
    attributes: tuple[tuple[str, Attribute], ...]
    parent: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """May this one do that with it?"""

    who: Who
    action: str
    thing: Thing
    context: tuple[tuple[str, Attribute], ...] = ()
    """Beside `trust`, which is the principal's."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and the policies that made it."""

    is_allowed: bool
    rules: tuple[str, ...] = ()
    """Ids (`@id`) of the policies that decided; empty where none permitted."""
    errors: tuple[str, ...] = ()
    """Policies that could not be evaluated: then the answer is no, whatever the others say."""

    def why(self) -> str:
        """For people."""
        if self.errors:
            return f"a policy could not be evaluated: {'; '.join(self.errors)}"
        if not self.rules:
            return "no policy permits it"
        return f"policy {', '.join(self.rules)}"


FREE = Decision(is_allowed=True, rules=("no policies are set",))

"""May it have this? The one question of AuthGuardian, answered without asking anybody. Pure.

What decides is who asks (authenticated), what the operator declared, and what the policy says about both. The
justification is no input of `decide` and no part of the policy's question: it is measured once, in `terms_of`,
where it can only lead to a no.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.grants.errors import InvalidRequest
from orchestrator.grants.types import Decider, ResourceType
from orchestrator.ledger.grant_values import Asked
from tasks.errors import near
from tasks.invocation import Principal

JUSTIFICATION_CHARS_MAX = 4000
SCOPES_MAX = 20
HIDDEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What would be granted, exactly: what a policy judges and a person is shown."""

    resource_type: str
    scope: tuple[str, ...]
    lifetime_s: float
    restrictions: Mapping[str, bool | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """For the policy. It has no place for a justification."""

    principal: Principal
    action: str
    resource: str
    context: Mapping[str, object]
    trust: int


@dataclass(frozen=True, slots=True)
class Ruling:
    """The policy's answer."""

    is_allowed: bool
    rules: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grantable:
    """Yes."""

    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskPerson:
    """Neither yes nor no: somebody is to look at it."""

    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deny:
    """No."""

    reason: str
    rules: tuple[str, ...] = ()


ASKS_POLICY = frozenset({Decider.POLICY, Decider.BOTH})


def terms_of(asked: Asked, types: Mapping[str, ResourceType]) -> Terms:
    """What the request would lead to.

    Raises:
        InvalidRequest: nobody declared it, or it is outside what was declared.
    """
    kind = types.get(asked.resource_type)
    if kind is None:
        raise InvalidRequest("resource_type", f"no resource type {asked.resource_type[:64]!r}{_near(asked, types)}")
    scope = tuple(sorted(set(asked.scope or kind.default_scope)))
    if not scope or len(scope) > SCOPES_MAX:
        raise InvalidRequest("scope", f"name one or more of {', '.join(kind.scopes)}")
    for one in scope:
        if one not in kind.scopes:  # equality: a `*` is a word that nobody declared
            raise InvalidRequest("scope", f"{asked.resource_type} has no scope {one[:64]!r}; {', '.join(kind.scopes)}")
    lifetime_s = kind.lifetime_s if asked.lifetime_s is None else asked.lifetime_s
    if not math.isfinite(lifetime_s) or not 0 < lifetime_s <= kind.lifetime_max_s:
        most = f"more than 0 and at most {kind.lifetime_max_s:g} seconds"
        raise InvalidRequest("lifetime_s", f"{asked.resource_type} is granted for {most}, not for {lifetime_s:g}")
    _check_justification(asked.justification, kind)
    return Terms(asked.resource_type, scope, float(lifetime_s), kind.restrictions.given())


def decide(terms: Terms, kind: ResourceType, ruling: Ruling | None, trust: int) -> Grantable | AskPerson | Deny:
    """The decision.

    Args:
        terms: what would be granted.
        kind: as the operator declared it.
        ruling: the policy's, where the type has it decide; None is a no then.
        trust: 0 to 100, from how the requester is connected; never from what it says.
    """
    if trust < kind.trust_min:
        return Deny(f"{terms.resource_type} needs a connection of trust {kind.trust_min}; this one has {trust}")
    rules: tuple[str, ...] = ()
    if kind.decided_by in ASKS_POLICY:
        if ruling is None or ruling.errors:
            return Deny("the policy could not be asked; an operator finds why in the audit", _rules(ruling))
        if not ruling.is_allowed:
            by = f" (by {', '.join(ruling.rules)})" if ruling.rules else ": no policy allows it"
            return Deny(f"the policy does not allow {terms.resource_type} {' '.join(terms.scope)}{by}", ruling.rules)
        rules = ruling.rules
    return Grantable(rules) if kind.decided_by is Decider.POLICY else AskPerson(rules)


def question_of(terms: Terms, kind: ResourceType, by: Principal, agent: str, trust: int) -> Question:
    """What the policy is asked: facts only."""
    context: dict[str, object] = {
        "agent": agent,
        "scope": sorted(terms.scope),
        "lifetime_s": math.ceil(terms.lifetime_s),
        "risk": kind.risk,
        "is_for_itself": agent == by.id,
    }
    return Question(by, "request", f'Resource::"{terms.resource_type}"', context, trust)


def plain(text: str) -> str:
    """Without characters that move a cursor, hide or turn round what a person reads."""
    shown = (one if one in "\n\t" or unicodedata.category(one)[0] != "C" else HIDDEN for one in text)
    return "".join(shown)


def _check_justification(text: str, kind: ResourceType) -> None:
    chars = len(text.strip())
    if chars < kind.justification_chars_min:
        raise InvalidRequest(
            "justification", f"say in {kind.justification_chars_min} characters or more what it is for; it has {chars}"
        )
    if len(text) > JUSTIFICATION_CHARS_MAX:
        raise InvalidRequest("justification", f"at most {JUSTIFICATION_CHARS_MAX} characters; it has {len(text)}")


def _near(asked: Asked, types: Mapping[str, ResourceType]) -> str:
    return near(asked.resource_type.upper()[:64], list(types)) or f"; there are {', '.join(sorted(types))}"


def _rules(ruling: Ruling | None) -> tuple[str, ...]:
    return () if ruling is None else ruling.rules

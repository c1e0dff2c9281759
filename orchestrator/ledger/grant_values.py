"""What the ledger keeps of a request for a grant, from its asking to its end. Refuses to know any token."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from hashlib import sha256

from tasks.grant import Grant


class GrantState(StrEnum):
    """Where a request stands. A granted one ends by its time, which is no state."""

    PENDING = "pending"
    """A person is asked."""
    GRANTED = "granted"
    DENIED = "denied"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One request and what became of it. Scopes and rules are words with blanks between them; times wall clock."""

    id: str
    tenant: str
    agent: str
    """For whom."""
    requested_by: str
    """Who asked: the agent itself, or a service that asks for its agents."""
    credential: str
    resource_type: str
    scope: str
    justification: str
    """As the agent wrote it: a claim, never a reason."""
    lifetime_s: float
    restrictions_json: str
    trust: int
    state: str
    asked_at: float
    parent: str | None = None
    """The Invocation whose run asked."""
    answer_by: float | None = None
    """While pending: nobody needs to answer after this."""
    decided_at: float | None = None
    decided_by: str | None = None
    """`policy`, or the person's id."""
    reason: str = ""
    rules: str = ""
    expires_at: float | None = None
    key: str | None = None
    """Id of the key that signs it."""
    revoked_at: float | None = None
    revoked_by: str | None = None

    def is_active(self, now: float) -> bool:
        """Whether it allows anything now."""
        return self.state == GrantState.GRANTED and self.expires_at is not None and now < self.expires_at

    def is_over(self, now: float) -> bool:
        """Nothing can change about it any more."""
        return self.state != GrantState.PENDING and (self.expires_at is None or now >= self.expires_at)


@dataclass(frozen=True, slots=True)
class GrantKeyRow:
    """A public key that has signed grants. The private one is in no place but its orchestrator's memory."""

    id: str
    public: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for, as it came."""

    agent: str
    resource_type: str
    justification: str
    scope: tuple[str, ...] = ()
    lifetime_s: float | None = None
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request has come to; `token` where it is granted and whoever asked asks."""

    row: GrantRow
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Validity:
    """Whether a token allows something now, and why not."""

    is_valid: bool
    why: str = ""
    grant: Grant | None = None


_TERMS = frozenset(
    {"id", "tenant", "agent", "requested_by", "resource_type", "scope", "justification", "lifetime_s"}
    | {"restrictions_json", "trust", "parent"}
)


def terms_digest(row: GrantRow) -> str:
    """Of everything that a person sees before he answers: an answer to anything else is none."""
    shown = {name: value for name, value in asdict(row).items() if name in _TERMS}
    return sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()

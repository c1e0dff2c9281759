"""The words of the audit log: what is told to it, what it keeps, and what is asked of it. No SQL, no hashing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Detail = str | int | bool


class Decision(StrEnum):
    """What was decided, or what became of it."""

    ALLOWED = "allowed"
    """Written before the act begins."""
    REFUSED = "refused"
    FAILED = "failed"
    """An act that was allowed did not come off; `of` in the details is its row."""
    NOTED = "noted"
    """Something of the orchestrator's own: it began to lead, it sealed rows."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One decision or act, as it is told. `details` holds names and numbers, never secrets or arguments."""

    action: str
    decision: Decision
    actor: str
    tenant: str = "default"
    credential: str = ""
    peer: str = ""
    target: str = ""
    reason: str = ""
    trace_id: str = ""
    details: Mapping[str, Detail] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row as it is kept. `hash` covers all the others, `prev` is the hash of the row before."""

    seq: int
    at_us: int
    """Microseconds since the epoch: a whole number has one form everywhere."""
    epoch: int
    tenant: str
    actor: str
    credential: str
    peer: str
    action: str
    target: str
    decision: str
    reason: str
    trace_id: str
    details_json: str
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The newest row's number and hash."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A signed statement about the log: `body_json` is what was signed."""

    seq: int
    sealed: int
    """Rows up to this one may have been removed."""
    body_json: str
    signature: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows. None: any. `until_us` is not within."""

    tenant: str | None = None
    actor: str | None = None
    action: str | None = None
    """Its beginning: `node.` finds all acts on nodes."""
    target: str | None = None
    decision: str | None = None
    since_us: int | None = None
    until_us: int | None = None


Link = Callable[[AuditHead | None, int], Sequence[AuditRow]]
"""The rows to write after this head, of this epoch. Called within the transaction that writes them."""

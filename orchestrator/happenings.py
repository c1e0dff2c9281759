"""What happened to Invocations, told to whoever listens: waiters, metrics, Flower, logs.

Told after the ledger committed, never before, and never the truth itself: a listener that missed
one re-reads the ledger. Listeners are called in the event loop and must not block or raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from tasks.approval import Taken
from tasks.invocation import Invocation, Lane, State
from tasks.outcome import ErrorInfo, Outcome
from tasks.spend import Spent

log = structlog.get_logger("mcpfleet.happenings")


@dataclass(frozen=True, slots=True)
class Accepted:
    """An Invocation is durable."""

    invocation: Invocation


@dataclass(frozen=True, slots=True)
class AttemptReleased:
    """An attempt was released to a node, or to a pool's queue."""

    invocation_id: str
    fence: int
    tool: str
    project: str | None
    pool: str
    node: str | None
    lane: Lane
    queue: str
    at: float
    waited_s: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttemptRunning:
    """A node said that the tool was started."""

    invocation_id: str
    fence: int
    node: str
    at: float


@dataclass(frozen=True, slots=True)
class EntryRefused:
    """On a node's stream stood what that node cannot have said, or nobody can read."""

    node: str
    why: str
    """`seal`, `unsealed` or `form`."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """The tool reported progress. Not stored."""

    invocation_id: str
    fence: int
    progress: float
    total: float | None
    message: str | None
    at: float


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt ended; `to` says what its Invocation became (waiting: it is tried again)."""

    invocation_id: str
    fence: int
    tool: str
    project: str | None
    pool: str
    node: str | None
    lane: Lane
    to: State
    ending: str
    released_at: float
    started_at: float | None
    at: float
    tries: int
    error: ErrorInfo | None
    not_before: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """An Invocation reached its end."""

    invocation_id: str
    state: State
    at: float
    tool: str
    outcome: Outcome | None
    dead_reason: str | None = None
    last: AttemptEnded | None = None


@dataclass(frozen=True, slots=True)
class ModelsUsed:
    """What an attempt spent on models was booked: what is new in it, each part once."""

    invocation_id: str
    fence: int
    spent: Spent


@dataclass(frozen=True, slots=True)
class ApprovalAsked:
    """A run waits for a person."""

    invocation_id: str
    fence: int
    approval_id: str
    tool: str
    """In the words of the agent."""
    arguments_sha256: str
    expires_at: float
    at: float


@dataclass(frozen=True, slots=True)
class ApprovalAnswered:
    """Somebody answered, or nobody did in time."""

    invocation_id: str
    fence: int
    approval_id: str
    tool: str
    answer: Taken
    by: str | None
    reason: str
    at: float


Happening = (
    Accepted
    | AttemptReleased
    | AttemptRunning
    | Progressed
    | EntryRefused
    | ApprovalAsked
    | ApprovalAnswered
    | AttemptEnded
    | Ended
    | ModelsUsed
)
Listener = Callable[[Happening], None]


class Happenings:
    """The fan-out. Constructed once, handed to the parts that tell and to those that listen."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Hear everything from now on."""
        self._listeners.append(listener)

    def tell(self, happening: Happening) -> None:
        """Tell every listener; one that raises is logged and does not silence the others."""
        for listener in self._listeners:
            try:
                listener(happening)
            except Exception:
                log.exception("listener_failed", happening=type(happening).__name__)

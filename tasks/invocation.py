"""An Invocation: one MCP tool call accepted by the fleet, and the states it passes through.

Owns the words `State`, `Lane`, `Principal`, `Call`, `Invocation` and `Attempt`. Refuses to know how
any of them is stored or sent: `tasks/wire.py` and `orchestrator/ledger` do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from tasks.outcome import Outcome
from tasks.retry import RetryPolicy

PROJECT_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
LABEL_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
TOOL_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.[A-Za-z0-9_./-]{1,128}")
FLEET_TENANT = "default"
"""The tenant that the fleet belongs to: its operators run what all tenants share."""
TENANT_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
TRUST_LEAST = 50
"""From outside; and of whoever nothing more is known of."""
PRIORITY_MIN, PRIORITY_DEFAULT, PRIORITY_MAX = 0, 5, 9
"""Higher is sooner, as in AMQP. 0 to 9 are the levels Celery's callers know."""


class Lane(StrEnum):
    """Short calls and long agent runs never share slots."""

    TOOLS = "tools"
    AGENTS = "agents"


class State(StrEnum):
    """Where an Invocation stands. The allowed moves are `TRANSITIONS`, and only those."""

    WAITING = "waiting"
    """Accepted and durable; not at any node. Also between two tries, until `not_before`."""
    RELEASED = "released"
    """On its way to a node, or waiting in that node's queue."""
    RUNNING = "running"
    """Its node said that the tool was started."""
    UNREACHABLE = "unreachable"
    """May be running on a node whose lease lapsed; it has a grace to come back."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED, State.LOST})
OUTSTANDING = frozenset({State.RELEASED, State.RUNNING, State.UNREACHABLE})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.RELEASED, State.CANCELLED, State.EXPIRED, State.FAILED}),
    State.RELEASED: frozenset({State.RUNNING, State.WAITING, State.UNREACHABLE}) | TERMINAL,
    State.RUNNING: frozenset({State.WAITING, State.UNREACHABLE}) | TERMINAL,
    State.UNREACHABLE: frozenset({State.RUNNING, State.WAITING}) | TERMINAL,
    **{state: frozenset() for state in TERMINAL},
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and for whom. Every Invocation has one."""

    id: str
    tenant: str = FLEET_TENANT
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    """What its credential was narrowed to; None: all that its roles allow."""
    groups: frozenset[str] = frozenset()
    """As its issuer says, for policies."""
    trust: int = TRUST_LEAST
    """0 to 100, from verified facts of its connection alone; see orchestrator/policy/zones.py."""
    credential: str = ""
    """What it showed, by name: `key:<id>`, `jwt:<jti>`, `static`, `node`. Never the credential itself."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a caller asks for, checked but not yet accepted.

    `arguments_json` is one JSON object as text: it is parsed once at the door, to be checked, and
    then only carried.
    """

    tool: str
    arguments_json: str = "{}"
    project: str | None = None
    requires: frozenset[str] = frozenset()
    pool: str | None = None
    lane: Lane | None = None
    priority: int = PRIORITY_DEFAULT
    not_before: float | None = None
    """Wall clock, seconds: not released before this (Celery's countdown and eta)."""
    expires_at: float | None = None
    """Wall clock, seconds: the deadline. Past it the call is expired, or stopped if it runs."""
    timeout_s: float | None = None
    """Seconds one attempt may run; the tool's own limit when absent."""
    retry: RetryPolicy | None = None
    idempotency_key: str | None = None
    trace_id: str | None = None
    """32 hex digits (W3C trace context); made at the door when absent."""
    then: tuple[Call, ...] = ()
    """Calls that are accepted, in order, when this one succeeded."""
    into: str | None = None
    """In `then`: the argument that receives the result of the call before."""
    invocation_id: str | None = None
    """An id chosen by the caller (Celery chooses task ids); made at the door when absent."""
    meta_json: str | None = None
    """`{"_meta": …, "inputResponses": …, "requestState": …}` as an MCP client sent them, carried."""
    parent: str | None = None
    """The Invocation that made this call: said by whoever gave that run a way to call, never by its agent."""
    trace_parent: str | None = None
    """The caller's span id and flags, `0af76519…-01`: the trace's root is below it (tasks/tracing.py)."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One release of an Invocation to a node."""

    invocation_id: str
    fence: int
    node: str | None
    """None until a node claims it (late binding)."""
    incarnation: str | None
    pool: str
    lane: Lane
    queue: str
    released_at: float
    started_at: float | None = None
    ended_at: float | None = None
    ending: str | None = None
    """succeeded, failed, cancelled, expired, lost, superseded, disowned, declined."""
    error_code: str | None = None
    error_message: str | None = None
    reasons: tuple[str, ...] = ()
    heard_at: float | None = None
    """While it runs: when its MCP server was last heard of, as its node last said. Never stored."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """A durable row of the ledger, as the doors see it."""

    id: str
    call: Call
    principal: Principal
    lane: Lane
    state: State
    accepted_at: float
    fence: int = 0
    tries: int = 0
    cancel_requested: bool = False
    ended_at: float | None = None
    outcome: Outcome | None = None
    replay_of: str | None = None
    root: str | None = None
    """The Invocation that all of this began with, where it has a parent."""
    depth: int = 0
    """How many parents it has, one above the other."""
    attempts: tuple[Attempt, ...] = field(default=())
    capsule: str | None = None
    """Digest of what was last saved of its session, while it has not ended."""
    approvals: tuple[str, ...] = ()
    """Ids of what it waits for a person to answer. Never stored with it."""

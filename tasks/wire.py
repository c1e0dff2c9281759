"""The HTTP API's JSON: what a client sends and what every door shows.

Pydantic, because bytes enter and leave here. Paths: docs/api.md. A listing is a `Page`, an error a `Problem`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tasks.grant import TOKEN_CHARS_MAX
from tasks.invocation import PRIORITY_DEFAULT, PRIORITY_MAX, PRIORITY_MIN, Lane, State
from tasks.node import NodeState, Visibility
from tasks.tool import RetryForm, ToolPolicy

T = TypeVar("T")


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _CallForm(_In):
    """What is said about any call. Durations are seconds; times are seconds since the epoch."""

    tool: str = Field(max_length=256, examples=["time.get_current_time"])
    arguments: dict[str, Any] = Field(default_factory=dict)
    project: str | None = None
    requires: frozenset[Annotated[str, Field(max_length=63)]] = Field(default=frozenset(), max_length=32)
    pool: str | None = Field(default=None, max_length=63)
    lane: Lane | None = None
    priority: int = Field(default=PRIORITY_DEFAULT, ge=PRIORITY_MIN, le=PRIORITY_MAX)
    """Higher is sooner, within one project."""
    delay_s: float | None = Field(default=None, ge=0, le=365 * 86_400)
    not_before: float | None = None
    deadline_s: float | None = None
    """Seconds from now."""
    expires_at: float | None = None
    timeout_s: float | None = Field(default=None, gt=0)
    retry: RetryForm | None = None
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=255)
    trace_id: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    grant: str | None = Field(default=None, min_length=1, max_length=TOKEN_CHARS_MAX)
    """A token of AuthGuardian, for a tool that needs one."""
    id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{8,64}$")
    """Chosen by the caller (Celery chooses task ids)."""


class NextCall(_CallForm):
    """A later call of a chain. Its durations count from when the chain was accepted."""

    into: str | None = Field(default=None, min_length=1, max_length=128)
    """The argument that receives the result of the call before."""


class CallRequest(_CallForm):
    """POST /v1/invocations."""

    then: tuple[NextCall, ...] = Field(default=(), max_length=50)
    """Accepted one after the other, each when the one before succeeded."""
    parent: str | None = Field(default=None, min_length=1, max_length=64)
    """The Invocation whose run makes this call. How many one may lead to is limited."""


class BatchRequest(_In):
    """POST /v1/invocations:batch. All are accepted in one commit, or none."""

    calls: tuple[CallRequest, ...] = Field(max_length=1000)


class Until(StrEnum):
    """When a wait for several Invocations is over, besides its time."""

    ANY = "any"
    """One of them ended."""
    ALL = "all"
    """All of them ended."""
    FIRST_FAILURE = "first_failure"
    """All of them ended, or one of them badly."""


class WaitRequest(_In):
    """POST /v1/invocations:wait. One request instead of one connection per Invocation."""

    ids: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(max_length=1000)
    timeout_s: float = Field(0.0, ge=0, le=3600)
    """The server waits no longer than its own limit; ask again for what is left."""
    until: Until = Until.ALL


class PauseRequest(_In):
    """POST /v1/pauses."""

    kind: Literal["queue", "pool", "project"]
    name: str = Field(min_length=1, max_length=255)
    is_paused: bool


class NodeStateRequest(_In):
    """POST /v1/nodes/{name}/state: cordon, uncordon (`active`) or drain."""

    state: Literal[NodeState.ACTIVE, NodeState.CORDONED, NodeState.DRAINING]


class ReplayRequest(_In):
    """POST /v1/dead-letters:replay. Without `ids`: all of the caller's."""

    ids: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] | None = Field(None, max_length=1000)


class DiscardRequest(_In):
    """POST /v1/dead-letters:discard."""

    ids: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(max_length=1000)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class Problem(_Out):
    """An error. Source: RFC 9457, `application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[dict[str, Any]] = Field(default_factory=list)
    """Where the request is wrong: `path` and `message` of each place."""
    fields: dict[str, Any] = Field(default_factory=dict)
    """The error's own fields (`tasks/errors.py`), by name."""
    trace_id: str | None = None
    """Names the request in the orchestrator's logs."""


class Page(_Out, Generic[T]):
    """One page of a listing, newest first. `next` goes into `?cursor=`; None at the end."""

    items: list[T]
    next: str | None = None


class ErrorView(_Out):
    """Why an Invocation did not succeed."""

    code: str
    message: str
    failure: str = ""
    """A `tasks.outcome.Failure`; empty where only the attempt's code was kept."""


class AttemptView(_Out):
    """One release to a node."""

    fence: int
    node: str | None
    pool: str
    queue: str
    released_at: float
    started_at: float | None
    ended_at: float | None
    ending: str | None
    error: ErrorView | None = None
    reasons: list[str] = Field(default_factory=list)
    heard_at: float | None = None
    """While it runs: when its MCP server was last heard of, as far as its node said so."""


class SpendView(_Out):
    """What one attempt spent on one model. Of one whose node died: as far as it had been told."""

    fence: int
    node: str
    model: str
    requests: int
    input_tokens: int
    """Without what was read from a cache, or written to it."""
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: float | None
    """None: the node had no price of this model."""
    is_estimated: bool
    """Some tokens were counted by the node, roughly."""


class InvocationView(_Out):
    """One Invocation. `result` is an MCP CallToolResult, present when it ended with one."""

    id: str
    tool: str
    project: str | None
    state: State
    lane: Lane
    priority: int
    tenant: str
    principal: str
    accepted_at: float
    ended_at: float | None
    expires_at: float | None
    not_before: float | None
    fence: int
    tries: int
    node: str | None
    trace_id: str | None
    trace_url: str | None = None
    replay_of: str | None = None
    parent: str | None = None
    root: str | None = None
    """What all of it began with, where it has a parent."""
    depth: int = 0
    cancel_requested: bool = False
    error: ErrorView | None = None
    result: dict[str, Any] | None = None
    attempts: list[AttemptView] = Field(default_factory=list)
    spent: list[SpendView] = Field(default_factory=list)
    """On models, by attempt and model; only where one Invocation is asked for."""
    approvals: list[str] = Field(default_factory=list)
    """Ids of what it waits for a person to answer; /v1/approvals has them whole."""


class ArgumentsView(_Out):
    """What one Invocation was called with."""

    id: str
    size_bytes: int
    """Of their JSON text."""
    arguments: dict[str, Any] | None
    """None: they are longer than the caller wanted them."""


class WaitView(_Out):
    """What a wait found. Every id asked for is in exactly one of the four."""

    ended: list[InvocationView]
    pending: list[str]
    unknown: list[str]
    """Not known, or another tenant's. A chain's later call is unknown until the one before ended."""
    more: list[str]
    """Ended, but this answer was full: ask for them again."""


class DiscardView(_Out):
    """How many dead letters were discarded."""

    discarded: int


class BlobView(_Out):
    """A blob that is stored."""

    sha256: str
    size_bytes: int


class HealthView(_Out):
    """The orchestrator answers."""

    status: Literal["ok"]
    version: str


class ExplainView(_Out):
    """Why it waits, why this node, or why it was refused: the current answer, then each attempt's."""

    id: str
    state: State
    summary: str
    reasons: list[str]
    attempts: list[AttemptView]
    trace_id: str | None = None
    trace_url: str | None = None


class ToolView(_Out):
    """A tool of the fleet and where it can run."""

    name: str
    title: str | None
    description: str | None
    lane: Lane
    is_safe: bool
    timeout_s: float
    pools: list[str]
    nodes: int
    policy: ToolPolicy
    definition: dict[str, Any]


class NodeView(_Out):
    """A node, its lease and its load."""

    name: str
    pool: str
    state: NodeState
    lease_left_s: float
    slots: dict[Lane, int]
    running: dict[Lane, int]
    outstanding: dict[Lane, int]
    cpu: float
    memory: float
    capabilities: list[str]
    tools: int
    location: str
    visibility: Visibility
    labels: dict[str, str]
    version: str
    url: str
    projects: list[str] = Field(default_factory=list)
    """Projects bound to it by affinity."""
    circuits: dict[str, str] = Field(default_factory=dict)
    """Open circuits: MCP server → why nothing goes there now; `""` stands for the whole node."""
    unhealthy: dict[str, str] = Field(default_factory=dict)
    """What failed its health checks, in the same form."""
    notes: dict[str, str] = Field(default_factory=dict)
    """MCP server → what people should know of it, though calls go there."""
    mirrors: dict[str, list[str]] = Field(default_factory=dict, description="agents' servers → projects copied there")
    clock_ahead_s: float | None = Field(default=None, description="its clock less the orchestrator's; null: not said")
    silent_s: float | None = Field(default=None, description="since its last renewal; null: none came yet")


class PoolView(_Out):
    """A pool and what is going on in it."""

    name: str
    strategy: str
    nodes: int
    slots: dict[Lane, int]
    outstanding: dict[Lane, int]
    waiting: int
    is_paused: bool
    capabilities: list[str]


class QueueView(_Out):
    """One Celery queue: what waits in the broker."""

    name: str
    pool: str
    node: str | None
    lane: Lane
    depth_msgs: int
    is_paused: bool


class BacklogView(_Out):
    """What waits in the ledger."""

    waiting: int
    delayed: int
    outstanding: int
    oldest_wait_s: float
    by_project: dict[str, int]
    paused_projects: list[str]


class DeadLetterView(_Out):
    """What ended badly, kept until replayed or discarded."""

    id: str
    tool: str
    project: str | None
    ending: str
    reason: str
    error: ErrorView | None
    ended_at: float
    replayed_as: str | None


class EventView(_Out):
    """One line of an Invocation's event stream (SSE `event:` is its `kind`)."""

    kind: str
    """accepted, released, running, progress, asked, answered, retry, ended."""
    at: float
    data: dict[str, Any] = Field(default_factory=dict)

"""What goes into the ledger and what comes out. Frozen, no SQL.

Every change of an Invocation's state is one of `NewInvocation`, `Release`, `Settlement`, `Started`
or a cancel; each is a compare-and-set that says whether it took.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.ledger.guest import Guest
from tasks.invocation import Invocation, Lane, Principal, State
from tasks.outcome import ErrorInfo, Outcome
from tasks.spend import Spend, Spent
from tasks.tool import UNDECLARED, Declared


@dataclass(frozen=True, slots=True)
class NewInvocation:
    """To be accepted: INSERT, unless its idempotency key, within the tenant, is known already."""

    invocation: Invocation
    call_digest: str
    """Of tool, arguments, project: tells a reused key from a repeated call."""
    arguments_blob: str | None = None
    """Set, and `call.arguments_json` empty, where the arguments are over the inline limit."""
    descendants_max: int | None = None
    """With `invocation.root`: how many rows may name that root; refused past it. None: never refused."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The row that now stands for the call. `is_new` is False for a repeated idempotency key."""

    invocation_id: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the dispatcher keeps in memory of a waiting Invocation; arguments stay in the ledger."""

    id: str
    tool: str
    project: str | None
    tenant: str
    lane: Lane
    requires: frozenset[str]
    pool: str | None
    priority: int
    accepted_at: float
    not_before: float | None
    expires_at: float | None
    fence: int
    tries: int
    is_chained: bool = False
    """Its call has `then`: settling a success must accept the next call in the same transaction."""
    principal: Principal | None = None
    """Who called, without what it showed: for policies about nodes."""
    guest: Guest | None = None
    """The same before those policies; None where none are set."""


@dataclass(frozen=True, slots=True)
class Release:
    """Wanted: waiting → released, fence + 1, one new attempt row. Refused if cancelled meanwhile."""

    invocation_id: str
    expected_fence: int
    pool: str
    node: str | None
    incarnation: str | None
    term: int
    lane: Lane
    queue: str
    reasons: tuple[str, ...]
    at: float
    declared: Declared = UNDECLARED


@dataclass(frozen=True, slots=True)
class Released:
    """A release that took, with what the delivery needs."""

    invocation_id: str
    fence: int
    tool: str
    arguments_json: str | None
    arguments_blob: str | None
    project: str | None
    tenant: str
    expires_at: float | None
    timeout_s: float | None
    trace_id: str | None
    meta_json: str | None
    tries: int
    capsule: str | None = None
    """Digest of what was last saved of its session."""
    spent_usd: float | None = None
    """With it: what earlier attempts are booked with; None where nothing of them has a price."""
    principal: str = ""
    """Who called."""
    trace_parent: str | None = None
    """As in the call."""


@dataclass(frozen=True, slots=True)
class Outstanding:
    """An attempt that was released and not settled: what credit and inventories are derived from."""

    invocation_id: str
    fence: int
    node: str | None
    incarnation: str | None
    term: int
    pool: str
    lane: Lane
    tool: str
    project: str | None
    state: State
    released_at: float
    started_at: float | None
    expires_at: float | None
    cancel_requested: bool
    tries: int = 0
    is_chained: bool = False
    declared: Declared = UNDECLARED
    """Of its tool, when it was released: the node may take the tool back while its server is away."""


@dataclass(frozen=True, slots=True)
class Started:
    """Wanted: released → running (or unreachable → running, when the node is back)."""

    invocation_id: str
    fence: int
    node: str
    at: float


@dataclass(frozen=True, slots=True)
class CapsuleSaved:
    """Wanted: this is the newest of an attempt's session. Takes as a settlement does, and only upwards."""

    invocation_id: str
    fence: int
    node: str
    number: int
    blob: str


@dataclass(frozen=True, slots=True)
class CapsuleKept:
    """Whether it took; and the blob that the row names no longer."""

    took: bool
    replaced: str | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """Wanted: the end of one attempt, and what becomes of its Invocation.

    Takes only while `fence` is current, the Invocation is outstanding, and `node` is the one the
    attempt belongs to (None: said by the orchestrator itself, for a lost or disowned attempt).
    """

    invocation_id: str
    fence: int
    node: str | None
    to: State
    """Terminal, or WAITING to try again, or UNREACHABLE (the attempt then stays open)."""
    attempt_ending: str
    at: float
    started_at: float | None = None
    outcome: Outcome | None = None
    """With a terminal `to`."""
    error: ErrorInfo | None = None
    """Of the attempt; kept in its row also when it is tried again."""
    not_before: float | None = None
    counts_try: bool = False
    dead_reason: str | None = None
    """Keeps a dead letter when set."""
    is_unclaimed: bool = False
    """Takes only while no node has claimed the attempt (late binding)."""
    successors: tuple[NewInvocation, ...] = field(default=())
    """Accepted in the same transaction (chains)."""
    spent: Spent = ()
    """By the attempt, on models; booked also where the settlement does not take."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Whether a settlement took. If not, `state` says what the ledger holds instead."""

    invocation_id: str
    fence: int
    took: bool
    state: State
    outcome: Outcome | None = None
    """What was written where it is not what was asked for: a cancel stood in the way of another try."""
    booked: Spent = ()
    """What was spent and not booked before."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a cancel met: ended at once (`was` WAITING), asked for (outstanding), or too late."""

    invocation_id: str
    was: State
    state: State
    node: str | None
    fence: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which Invocations a listing shows."""

    tenant: str | None = None
    project: str | None = None
    tool: str | None = None
    node: str | None = None
    lane: Lane | None = None
    states: frozenset[State] = frozenset()
    since: float | None = None
    principal: str | None = None
    took_s: float | None = None
    now: float = 0.0  # by when what has not ended took `took_s`


@dataclass(frozen=True, slots=True)
class Purge:
    """Wanted: forget what ended, among the `limit` rows that come next after `after`, a row's number."""

    after: int
    limit: int
    ended_before: float
    dead_before: float
    """The same for what has a dead letter that nobody answered."""


@dataclass(frozen=True, slots=True)
class Purged:
    """How many went, and where the next slice begins; None at the end of what is old enough."""

    deleted: int
    after: int | None


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the ledger remembers it across restarts of the orchestrator."""

    name: str
    pool: str
    incarnation: str
    term: int
    state: str
    offer_json: str
    delivery_key: str
    token_digest: str
    joined_at: float
    join_number: int | None = None
    wish: str | None = None
    """NodeState that an operator wants; absent in rows of the version before."""


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """A NodeClaim: what is asked for by name, and the whole of it as JSON."""

    id: str
    pool: str
    node: str
    state: str
    created_at: float
    state_at: float
    body_json: str


@dataclass(frozen=True, slots=True)
class EnrolmentRow:
    """A one-time token for one node name, and the credential that it was traded for. Digests only."""

    name: str
    pool: str
    token_digest: str
    expires_at: float
    credential_digest: str | None = None
    used_at: float | None = None


@dataclass(frozen=True, slots=True)
class ScalePoolRow:
    """What is remembered of a pool's size beside its policy, each as JSON; None where there is nothing."""

    pool: str
    shape_json: str | None = None
    """What its nodes last offered: what a machine of it would bring."""
    season_json: str | None = None
    override_json: str | None = None


@dataclass(frozen=True, slots=True)
class ScaleLogRow:
    """One decision of the autoscaler and what it saw."""

    pool: str
    at: float
    observation_json: str
    decision_json: str


@dataclass(frozen=True, slots=True)
class Booking:
    """Wanted: keep what an attempt of this node spent until now, all of it."""

    invocation_id: str
    fence: int
    node: str
    at: float
    spent: Spent


@dataclass(frozen=True, slots=True)
class SpendRow:
    """What one attempt spent on one model."""

    fence: int
    node: str
    at: float
    spend: Spend


class CostsBy(StrEnum):
    """What a report of costs is grouped by."""

    PROJECT = "project"
    MODEL = "model"
    NODE = "node"
    TOOL = "tool"
    DAY = "day"
    """In UTC."""


@dataclass(frozen=True, slots=True)
class CostsQuery:
    """Which spend is summed up: of one tenant, from `since` until before `until`, wall clocks."""

    by: CostsBy
    tenant: str
    since: float
    until: float
    project: str | None = None
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class Cost:
    """A sum of spend. `key` None: of calls without a project, or the sum of all."""

    key: str | None
    calls: int
    requests: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    cost_usd: float | None
    """Of what has a price; None where nothing has."""
    unpriced_requests: int
    """Whose cost is not in it, because nobody knows it."""
    is_estimated: bool


@dataclass(frozen=True, slots=True)
class UsedRow:
    """What a tenant's project used: calls, tokens and money of a day, and runs of agents under way now."""

    tenant: str
    project: str | None
    calls: int
    runs: int
    tokens: int
    cost_usd: float

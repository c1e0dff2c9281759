"""What a node and the orchestrator say to each other over HTTP: enrol, join, renew, claim, leave.

Wire forms only. The lease protocol they carry is docs/adr/0003-leases.md.

A delivery may be started by a node only if it names this node, this incarnation and the current
**term** of its lease. When a lease lapses the orchestrator raises the term, so whatever was
released under the old one and still sits in a queue is void the moment the node hears of it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.approval import Verdict
from tasks.grant import GrantNews
from tasks.invocation import Lane
from tasks.tool import ToolSpec

WIRE_VERSION = 1
"""Of deliveries, events and the node protocol. A peer that speaks another is told so at join."""
LEASE_TTL_S = 7.0
RENEW_EVERY_S = 2.0
assert LEASE_TTL_S > 3 * RENEW_EVERY_S, "a lease must outlive two lost renewals"
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,40}$"
"""Node and pool names stand in queue names and Redis ACL patterns: no glob characters."""


class Visibility(StrEnum):
    """Who may be placed here."""

    PUBLIC = "public"
    PRIVATE = "private"
    CLUSTERED = "clustered"


class NodeState(StrEnum):
    """What the orchestrator wants of a node, or knows about it."""

    ACTIVE = "active"
    CORDONED = "cordoned"
    DRAINING = "draining"
    LOST = "lost"
    LEFT = "left"


class Phase(StrEnum):
    """Where a held attempt stands on its node."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    """Ended, outcome not yet acknowledged as settled."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class Held(_Wire):
    """One line of an inventory."""

    invocation: str
    fence: int
    phase: Phase
    quiet_s: float | None = None
    """Of a running one: seconds since its MCP server was last heard of. None where that cannot be known."""


class Ref(_Wire):
    """One attempt, named."""

    invocation: str
    fence: int


class Load(_Wire):
    """What a node measures of itself."""

    cpu: float = 0.0
    """Share of all cores in use, 0 to 1."""
    memory: float = 0.0
    """Share of memory in use, 0 to 1."""
    running: dict[Lane, int] = Field(default_factory=dict)
    waiting: dict[Lane, int] = Field(default_factory=dict)
    clock_ahead_s: float | None = None
    """Its wall clock less the orchestrator's, as answers taught it; None from a node that does not say."""


class Offer(_Wire):
    """What a node offers: decides what may be placed on it."""

    name: str = Field(pattern=NAME_PATTERN)
    pool: str = Field(pattern=NAME_PATTERN)
    slots: dict[Lane, int]
    """Attempts that may run at once, per lane."""
    capabilities: frozenset[str] = frozenset()
    tools: tuple[ToolSpec, ...] = ()
    location: str = ""
    visibility: Visibility = Visibility.PUBLIC
    labels: dict[str, str] = Field(default_factory=dict)
    weight: float = Field(default=1.0, gt=0)
    version: str = ""
    url: str = ""
    """Where the node's own MCP server, `/health` and `/metrics` answer."""
    unhealthy: dict[str, str] = Field(default_factory=dict)
    """MCP server → why nothing should be placed on it for now, though its tools are offered; `""` stands for
    the whole node. Reasons hold no counts and times: a changed offer is written down."""
    notes: dict[str, str] = Field(default_factory=dict)
    """MCP server → what people should know of it, though calls may come; no counts and times, as above."""
    mirrors: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Server of agents → projects whose files it keeps a copy of, by name: a run of them begins sooner there."""


class EnrolRequest(_Wire):
    """POST /v1/enrolments/{name}, with a one-time token. The credential itself never leaves the node."""

    credential_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the credential's text, in hex."""
    csr: str | None = None
    """PEM, PKCS #10: of a key that the node made. Its certificate is wanted too."""


class EnrolReply(_Wire):
    """The credential with that digest may join, under this name and pool only."""

    node: str
    pool: str
    certificate: str = ""
    """PEM, with what it needs to be believed; empty where none was wanted, or the fleet makes none."""
    roots: str = ""
    """PEM: the authorities to believe from now on; empty: as it was told before."""


class CertificateRequest(_Wire):
    """POST /v1/nodes/{name}/certificates, with the certificate that is to be replaced."""

    csr: str
    """PEM, PKCS #10."""


class CertificateReply(_Wire):
    """From now on the node's token is good with this certificate."""

    certificate: str
    not_after: float
    """The orchestrator's wall clock."""
    roots: str = ""
    """PEM: the authorities to believe from now on; empty: as it was told before."""


class JoinRequest(_Wire):
    """POST /v1/nodes, with the fleet's join token or this node's credential."""

    wire_version: int = WIRE_VERSION
    incarnation: str
    """New at every process start."""
    number: int = 0
    """Grows with every try of this process to join; 0 from one that does not count. A copy of an earlier
    try, late in the network, must not undo what a later one began."""
    offer: Offer
    resumes: str | None = None
    """The incarnation whose journal this process recovered. Without it, or with another than the
    orchestrator last knew, everything that was outstanding here may have started."""
    interrupted: tuple[Ref, ...] = ()
    """From that journal: started and never finished. `MAYBE_STARTED`."""
    finished: tuple[Ref, ...] = ()
    """From that journal: ended, not settled; their `Finished` events follow on the stream.
    What `resumes` names and neither list holds was never started there."""
    unstarted: tuple[str, ...] = ()
    """From that journal: incarnations that came after `resumes`, may have joined, and died before they could
    start anything. Where the orchestrator last knew one of them, the lists above are complete all the same."""
    seals: bool = False
    """It opens sealed deliveries; a node of before ADR 0020 does not."""
    yields: bool = False
    """It was superseded: where a process that is alive has the name, this one is refused."""


class SealTerms(_Wire):
    """The keys of one incarnation's sealed messages (ADR 0020). Secret, but for `signer`."""

    key: str = Field(repr=False)
    """Hex, 32 bytes: those of this node's deliveries, events and control entries are derived from it."""
    pool_key: str = Field(repr=False)
    """Hex, 32 bytes: of its pool's late-bound deliveries."""
    signer: str
    """Hex: the Ed25519 public key that late-bound deliveries are signed with."""
    is_demanded: bool = True
    """Nothing plain is taken by either side."""


class JoinReply(_Wire):
    """Everything a node needs to work."""

    node: str
    node_token: str
    """Bearer token of this incarnation for renew, claim, blobs and leave."""
    delivery_key: str
    """Hex; HMAC-SHA256 key of this incarnation's deliveries."""
    pool_key: str
    """Hex; authenticates late-bound deliveries (`node` null) of this node's pool. A delivery is
    opened with the key of its kind only: own key for addressed ones, this one for late-bound ones."""
    term: int
    lease_ttl_s: float = LEASE_TTL_S
    renew_every_s: float = RENEW_EVERY_S
    redis_url: str
    queues: tuple[str, ...]
    """Celery queues to consume: the node's own, one per lane; and the pool's under late binding."""
    events_stream: str
    control_stream: str
    inline_limit_bytes: int
    result_limit_bytes: int
    capsule_limit_bytes: int = 0
    """A larger session capsule is not saved; 0: this orchestrator takes none."""
    now: float | None = None
    """The orchestrator's wall clock when it answered; absent from one of before ADR 0010."""
    seal: SealTerms | None = None
    """Absent from an orchestrator of before ADR 0020: all is plain, authenticated with the keys above."""


class RenewRequest(_Wire):
    """POST /v1/nodes/{name}/renewals. Sent one after the other, never two at once."""

    incarnation: str
    number: int = 0
    """Grows with every renewal of this process; 0 from one that does not count. What comes after a later
    one is late, and says what was."""
    load: Load = Load()
    inventory: tuple[Held, ...] = ()
    """Everything this node holds. What it leaves out it does not have."""
    heard: int = 0
    """`number` of the last RenewReply this node acted on. A `void` counts only once heard: a lost
    reply must not let the orchestrator release again what this node may still start."""
    is_draining: bool = False
    offer: Offer | None = None
    """Sent again when it changed (a server died, tools were added)."""
    grants: str | None = None
    """Version of what it knows about grants, empty at first; None from a node that checks none."""
    returned: tuple[Ref, ...] = ()
    """Handed back by a draining node: not started here, and never to be. Said until a reply is heard. An
    orchestrator that does not know this field finds them missing from the inventory."""
    sealed_by: str | None = None
    """Names the seal terms this node has (`sealing.terms_id`), "" for none; others are sent to it with the
    reply. None: a node of before ADR 0020, which opens nothing sealed."""


class ApprovalAnswer(_Wire):
    """What a person said to a question of a run on this node."""

    approval: str
    verdict: Verdict
    arguments_sha256: str
    """Of the arguments that the person saw: an answer to others is none."""
    reason: str = ""


class RenewReply(_Wire):
    """The lease, and what to do."""

    granted: bool
    """False: this incarnation is not known (superseded by a newer one); join again."""
    number: int = 0
    """Grows with every reply to this incarnation; the next request's `heard` repeats it."""
    term: int = 0
    lease_ttl_s: float = LEASE_TTL_S
    state: NodeState = NodeState.ACTIVE
    void: tuple[Ref, ...] = ()
    """Never start these; where running they are superseded: stop them."""
    cancel: tuple[Ref, ...] = ()
    settled: tuple[Ref, ...] = ()
    """Finished entries the journal may forget."""
    answers: tuple[ApprovalAnswer, ...] = ()
    """To questions of what runs here; said again until the node has said what it made of each."""
    now: float | None = None
    """As in JoinReply."""
    newest: tuple[int, int] | None = None
    """Number of the newest delivery sent so far: whatever `void` names has this one or an older one."""
    grants: GrantNews | None = None
    """Where the node knows another version: all of it."""
    secrets: str = ""
    """Another one than before: some secret may have a new version, and who runs with one asks for its own."""
    seal: SealTerms | None = None
    """New ones, where the node has others: the fleet's secret changed, or whether sealing is demanded."""


class ClaimRequest(_Wire):
    """POST /v1/nodes/{name}/claims: may I run what I took from the pool's queue?"""

    incarnation: str
    claims: tuple[Ref, ...]


class ClaimReply(_Wire):
    """The granted ones. What is not granted was claimed, superseded or cancelled: drop it."""

    granted: tuple[Ref, ...]


class RunGrantRequest(_Wire):
    """POST /v1/nodes/{name}/grants: a run on this node asks AuthGuardian, as whoever called it."""

    incarnation: str
    run: Ref
    resource_type: str = Field(max_length=64)
    justification: str = Field(default="", max_length=4000)
    scope: tuple[str, ...] = Field(default=(), max_length=20)
    request: str | None = Field(default=None, max_length=64)
    """Ask again about this one."""


class RunGrantReply(_Wire):
    """What became of it. The token stays with the node: the run's agent never sees it."""

    id: str
    status: str
    token: str | None = None
    reason: str = ""
    scope: tuple[str, ...] = ()
    expires_at: float | None = None


class LeaveRequest(_Wire):
    """POST /v1/nodes/{name}/leave, journal empty."""

    incarnation: str
    returned: tuple[Ref, ...] = ()
    """Held but not started: handed back at no cost in tries."""


class Control(_Wire):
    """One entry of a node's control stream: prompt, and repeated by the next renewal."""

    kind: Literal["settled", "cancel", "approvals"]
    refs: tuple[Ref, ...] = ()
    noted: tuple[str, ...] = ()
    """Questions that are in the ledger: they need not be asked again."""
    answers: tuple[ApprovalAnswer, ...] = ()

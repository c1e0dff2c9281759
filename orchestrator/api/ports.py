"""What the HTTP door needs of the rest of the orchestrator. `bootstrap.py` supplies it.

Owns Protocols only. The fleet's errors are `tasks.errors`; the door gives each its status.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from orchestrator.ledger.approval_values import ApprovalRow
from orchestrator.ledger.dead_values import DeadCount, DeadFilter, DeadLetter
from orchestrator.ledger.key_values import IssuedKey, KeyRow, WantedKey
from orchestrator.ledger.secret_values import Resealed
from orchestrator.ledger.values import Cost, CostsQuery, Filter, SpendRow
from orchestrator.presented import Presented
from tasks.approval import ApprovalState, Verdict
from tasks.erasure_wire import ErasureView
from tasks.invocation import Call, Invocation, Principal
from tasks.node import (
    CertificateReply,
    ClaimReply,
    ClaimRequest,
    EnrolReply,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    NodeState,
    RenewReply,
    RenewRequest,
)
from tasks.policy_wire import PolicyView
from tasks.scale_wire import (
    EnrolmentView,
    MachineView,
    OverrideView,
    ScaleLogView,
    ScalePlanView,
    ScaleReplayView,
    ScaleView,
)
from tasks.secret_wire import SecretRequest, SecretsReply, SecretView
from tasks.wire import BacklogView, EventView, ExplainView, NodeView, PoolView, QueueView, ToolView
from tasks.wire_objectives import ObjectivesView
from tasks.wire_trouble import CircuitView


class Calls(Protocol):
    """Invocations: accept, watch, end."""

    async def accept(self, calls: Sequence[Call], principal: Principal) -> list[Invocation]: ...
    async def get(self, invocation_id: str, principal: Principal) -> Invocation: ...
    async def wait(self, invocation_id: str, principal: Principal, timeout_s: float | None) -> Invocation: ...
    async def result_json(self, invocation: Invocation) -> str | None: ...
    async def arguments_json(self, invocation_id: str, principal: Principal) -> str: ...
    async def cancel(self, invocation_id: str, principal: Principal) -> Invocation: ...
    async def replay(self, invocation_id: str, principal: Principal) -> Invocation: ...
    async def explain(self, invocation_id: str, principal: Principal) -> ExplainView: ...
    def events(self, invocation_id: str, principal: Principal) -> AsyncIterator[EventView]: ...
    async def listing(
        self, where: Filter, principal: Principal, cursor: str | None, limit: int
    ) -> tuple[list[Invocation], str | None]: ...


class Operations(Protocol):
    """The fleet as an operator sees and steers it."""

    def tools(self, principal: Principal) -> list[ToolView]: ...
    def nodes(self) -> list[NodeView]: ...
    def pools(self) -> list[PoolView]: ...
    async def queues(self) -> list[QueueView]: ...
    def circuits(self) -> list[CircuitView]: ...
    def backlog(self) -> BacklogView: ...
    async def pause(self, kind: str, name: str, is_paused: bool) -> None: ...
    async def set_node_state(self, name: str, state: NodeState) -> NodeView: ...


class Graveyard(Protocol):
    """Dead letters."""

    async def dead_letters(
        self, principal: Principal, where: DeadFilter, cursor: str | None, limit: int
    ) -> tuple[list[DeadLetter], str | None]: ...
    async def dead_counts(self, principal: Principal, where: DeadFilter) -> list[DeadCount]: ...
    async def replay_dead(self, ids: Sequence[str] | None, principal: Principal) -> list[Invocation]: ...
    async def discard_dead(self, ids: Sequence[str], principal: Principal) -> int: ...


class Fleet(Calls, Operations, Graveyard, Protocol):
    """`orchestrator.fleet.Fleet`, or `orchestrator.testing.fleet.FakeFleet`."""


class Nodes(Protocol):
    """The node protocol. The door has checked that the caller is the node it names."""

    async def join(
        self, request: JoinRequest, check: Callable[[], None] | None = None, certificate: str | None = None
    ) -> JoinReply: ...
    async def renew(self, name: str, request: RenewRequest) -> RenewReply: ...
    async def claim(self, name: str, request: ClaimRequest) -> ClaimReply: ...
    async def leave(self, name: str, request: LeaveRequest) -> None: ...


class Enrolments(Protocol):
    """One-time tokens for nodes, and who may join with what they were traded for."""

    async def issue(self, name: str, pool: str, ttl_s: float) -> EnrolmentView: ...
    async def enrol(self, name: str, token_digest: str, credential_digest: str) -> EnrolReply: ...
    def require(self, name: str) -> None: ...
    async def revoke(self, name: str) -> None: ...
    def check(self, principal: Principal, name: str, pool: str) -> None: ...


class Certificates(Protocol):
    """Makes certificates of nodes."""

    def enrolled(self, name: str, csr: str | None) -> CertificateReply | None: ...
    async def renew(self, name: str, token: str, csr: str, certificate: str | None) -> CertificateReply: ...


class Keys(Protocol):
    """API keys."""

    def listing(self, by: Principal) -> list[KeyRow]: ...
    def get(self, key_id: str, by: Principal) -> KeyRow: ...
    async def issue(self, wanted: WantedKey, by: Principal) -> IssuedKey: ...
    async def rotate(self, key_id: str, by: Principal, *, is_own: bool = False) -> IssuedKey: ...
    async def revoke(self, key_id: str, by: Principal) -> list[KeyRow]: ...


class Session(Protocol):
    """A bearer token for minutes."""

    @property
    def token(self) -> str: ...
    @property
    def expires_at(self) -> float: ...
    @property
    def principal(self) -> Principal: ...


class Challenges(Protocol):
    """Nonces, and what a signed one is traded for."""

    def challenge(self, key_id: str) -> tuple[str, float]: ...
    def session(self, key_id: str, nonce: str, signature: str, *, server: str, peer: str | None) -> Session: ...


class PolicyAnswer(Protocol):
    """What policies answer."""

    @property
    def is_allowed(self) -> bool: ...
    @property
    def rules(self) -> tuple[str, ...]: ...
    @property
    def errors(self) -> tuple[str, ...]: ...
    def why(self) -> str: ...


class Policies(Protocol):
    """The policies in force."""

    def show(self) -> PolicyView: ...
    def explain(self, principal: Principal, action: str, name: str, project: str | None) -> PolicyAnswer: ...


class Approvals(Protocol):
    """Questions of runs to people."""

    async def get(self, approval_id: str, principal: Principal) -> ApprovalRow: ...
    async def listing(
        self, states: frozenset[ApprovalState], principal: Principal, cursor: str | None, limit: int
    ) -> tuple[list[ApprovalRow], str | None]: ...
    async def answer(
        self, approval_id: str, verdict: Verdict, arguments_sha256: str, reason: str, principal: Principal
    ) -> ApprovalRow: ...


class Secrets(Protocol):
    """Secrets by reference. No method but `give` answers with a value."""

    async def put(self, owner: str, name: str, wanted: SecretRequest, principal: Principal) -> SecretView: ...
    async def show(self, owner: str, name: str, principal: Principal) -> SecretView: ...
    async def listing(self, principal: Principal) -> list[SecretView]: ...
    async def delete(self, owner: str, name: str, principal: Principal) -> None: ...
    async def rewrap(self) -> tuple[str, int, int]: ...
    def resealed(self) -> tuple[str, Resealed]: ...
    async def give(self, node: str, server: str, refs: Sequence[str], *, with_values: bool) -> SecretsReply: ...


class Erasure(Protocol):
    """Forgetting a project."""

    async def erase(self, project: str, principal: Principal) -> ErasureView: ...


class Scaling(Protocol):
    """The autoscaler as an operator sees and steers it."""

    async def scale(self) -> ScaleView: ...
    def machines(self) -> list[MachineView]: ...
    async def log(
        self, pool: str | None, since: float | None, until: float | None, limit: int
    ) -> list[ScaleLogView]: ...
    async def plan(self, pool: str | None, changes: Mapping[str, object]) -> list[ScalePlanView]: ...
    async def replay(self, pool: str, since: float, changes: Mapping[str, object]) -> ScaleReplayView: ...
    async def set_override(self, pool: str, target: int, until: float, by: str) -> OverrideView: ...
    async def clear_override(self, pool: str) -> None: ...
    async def set_dry(self, is_dry: bool) -> None: ...
    async def wind_down(self) -> None: ...


class Money(Protocol):
    """What was spent on models."""

    async def costs(self, query: CostsQuery) -> tuple[list[Cost], Cost]: ...
    async def spend_of(self, invocation_id: str) -> list[SpendRow]: ...


class Blobs(Protocol):
    """Payloads over the inline limit, by the SHA-256 of their bytes."""

    async def store(self, digest: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> int:
        """Keep what is streamed; the bytes' number.

        Raises:
            InvalidCall: they are not what `digest` says.
            PayloadTooLarge: more than `limit_bytes`.
        """
        ...

    async def size_bytes(self, digest: str) -> int:
        """Raises NotFound."""
        ...

    def stream(self, digest: str) -> AsyncGenerator[bytes, None]:
        """Raises NotFound."""
        ...


class Meter(Protocol):
    """What counts requests; times are its own."""

    def begin(self) -> float: ...
    def answered(self, operation: str, status: int, began_s: float, trace_id: str) -> None: ...


class NoMeter:
    """Nothing is counted."""

    def begin(self) -> float:
        """Any time."""
        return 0.0

    def answered(self, operation: str, status: int, began_s: float, trace_id: str) -> None:
        """Nobody counts."""


class Objectives(Protocol):
    """The service level objectives, as far as this process measured them."""

    def show(self) -> ObjectivesView: ...


class Verifier(Protocol):
    """Who sent a request."""

    async def verify(self, presented: Presented) -> Principal | None: ...

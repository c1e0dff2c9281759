"""What the HTTP door needs besides a fleet: tokens, and the node protocol's other end."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.identity.tokens import ANY_NODE, digest
from orchestrator.ledger.approval_values import ApprovalRow
from orchestrator.ledger.key_values import KeyRow
from orchestrator.ledger.values import EnrolmentRow
from orchestrator.policy.question import FREE, Decision
from orchestrator.presented import Presented
from tasks.approval import ApprovalState, Verdict
from tasks.errors import NotFound
from tasks.invocation import Principal
from tasks.node import (
    ClaimReply,
    ClaimRequest,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    RenewReply,
    RenewRequest,
)
from tasks.policy_wire import PolicyView
from tasks.scopes import Role

OPERATOR_TOKEN, CLIENT_TOKEN, OTHER_TOKEN = "token-operator", "token-client", "token-other-tenant"
JOIN_TOKEN, NODE_TOKEN = "token-join", "token-node-a"
NODE_NAME = "a"


class FakeTokens:
    """Five tokens: an operator, a client, a client of another tenant, a joining node, the node `a`."""

    def __init__(self, enrolled: Callable[[str], Principal | None] = lambda _digest: None) -> None:
        self._enrolled = enrolled
        self._known = {
            OPERATOR_TOKEN: Principal("operator", roles=frozenset({Role.ADMIN})),
            CLIENT_TOKEN: Principal("alice", roles=frozenset({Role.DEVELOPER})),
            OTHER_TOKEN: Principal("bob", tenant="other", roles=frozenset({Role.DEVELOPER})),
            JOIN_TOKEN: Principal(ANY_NODE, roles=frozenset({Role.JOIN})),
            NODE_TOKEN: Principal(NODE_NAME, roles=frozenset({Role.NODE})),
        }

    async def principal(self, presented: Presented) -> Principal | None:
        """Who this is."""
        return self._known.get(presented.token) or self._enrolled(digest(presented.token))


class FakeNodes:
    """Grants everything and remembers who joined."""

    def __init__(self) -> None:
        self.joined: dict[str, str] = {}

    async def join(
        self, request: JoinRequest, check: Callable[[], None] | None = None, certificate: str | None = None
    ) -> JoinReply:
        """Admit."""
        del certificate
        if check is not None:
            check()
        name = request.offer.name
        self.joined[name] = request.incarnation
        return JoinReply(
            node=name,
            node_token=NODE_TOKEN,
            delivery_key="00" * 32,
            pool_key="11" * 32,
            term=1,
            redis_url="redis://127.0.0.1:1/0",
            queues=(f"mcpfleet.n.{name}.tools",),
            events_stream=f"mcpfleet.n.{name}.events",
            control_stream=f"mcpfleet.n.{name}.control",
            inline_limit_bytes=65_536,
            result_limit_bytes=1_000_000,
        )

    async def expel(self, name: str) -> None:
        """Forget it."""
        self.joined.pop(name, None)

    async def renew(self, name: str, request: RenewRequest) -> RenewReply:
        """Granted to the incarnation that joined last."""
        return RenewReply(granted=self.joined.get(name) == request.incarnation, term=1)

    async def claim(self, name: str, request: ClaimRequest) -> ClaimReply:
        """Everything asked for, by a node that joined."""
        return ClaimReply(granted=request.claims if name in self.joined else ())

    async def leave(self, name: str, request: LeaveRequest) -> None:
        """Forget it. Raises NotFound."""
        if self.joined.pop(name, None) != request.incarnation:
            raise NotFound("node", name, list(self.joined))


class MemoryEnrolments:
    """The ledger's table of enrolments."""

    def __init__(self) -> None:
        self.rows: dict[str, EnrolmentRow] = {}

    async def save_enrolment(self, row: EnrolmentRow) -> None:
        """Keep it."""
        self.rows[row.name] = row

    async def forget_enrolment(self, name: str) -> None:
        """Forget it."""
        self.rows.pop(name, None)


class MemoryKeys:
    """The ledger's table of API keys."""

    def __init__(self) -> None:
        self.rows: dict[str, KeyRow] = {}

    async def save(self, row: KeyRow) -> None:
        """Keep it."""
        self.rows[row.id] = row

    async def forget(self, key_id: str) -> None:
        """Forget it."""
        self.rows.pop(key_id, None)


class NoPolicies:
    """Nothing is in force here."""

    def show(self) -> PolicyView:
        """Off."""
        return PolicyView(is_on=False)

    def explain(self, principal: Principal, action: str, name: str, project: str | None) -> Decision:  # noqa: ARG002
        """Everything is allowed."""
        return FREE


class NoApprovals:
    """Nobody asks here."""

    async def get(self, approval_id: str, principal: Principal) -> ApprovalRow:  # noqa: ARG002 - the port's
        """Raises NotFound."""
        raise NotFound("approval", approval_id)

    async def listing(
        self,
        states: frozenset[ApprovalState],  # noqa: ARG002 - the port's
        principal: Principal,  # noqa: ARG002 - the port's
        cursor: str | None,  # noqa: ARG002 - the port's
        limit: int,  # noqa: ARG002 - the port's
    ) -> tuple[list[ApprovalRow], str | None]:
        """Nothing."""
        return [], None

    async def answer(
        self,
        approval_id: str,
        verdict: Verdict,  # noqa: ARG002 - the port's
        arguments_sha256: str,  # noqa: ARG002 - the port's
        reason: str,  # noqa: ARG002 - the port's
        principal: Principal,  # noqa: ARG002 - the port's
    ) -> ApprovalRow:
        """Raises NotFound."""
        raise NotFound("approval", approval_id)

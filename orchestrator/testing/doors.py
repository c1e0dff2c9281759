"""What the HTTP door needs besides a fleet: tokens, and the node protocol's other end."""

from __future__ import annotations

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

OPERATOR_TOKEN, CLIENT_TOKEN, OTHER_TOKEN = "token-operator", "token-client", "token-other-tenant"
JOIN_TOKEN, NODE_TOKEN = "token-join", "token-node-a"
NODE_NAME = "a"


class FakeVerifier:
    """Five tokens: an operator, a client, a client of another tenant, a joining node, the node `a`."""

    def __init__(self) -> None:
        self._known = {
            OPERATOR_TOKEN: Principal("operator", roles=frozenset({"client", "admin"})),
            CLIENT_TOKEN: Principal("alice", roles=frozenset({"client"})),
            OTHER_TOKEN: Principal("bob", tenant="other", roles=frozenset({"client"})),
            JOIN_TOKEN: Principal("join", roles=frozenset({"join"})),
            NODE_TOKEN: Principal(NODE_NAME, roles=frozenset({"node"})),
        }

    def verify(self, token: str) -> Principal | None:
        """Who this is."""
        return self._known.get(token)


class FakeNodes:
    """Grants everything and remembers who joined."""

    def __init__(self) -> None:
        self.joined: dict[str, str] = {}

    async def join(self, request: JoinRequest) -> JoinReply:
        """Admit."""
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

"""A claim as an order to a cloud: the node's settings, its user data, its one-time token.

A claim's token is kept for as long as this process orders its machine, so that an order given again is the
same. Refuses to put anything long-lived into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import NodeClaim
from tasks.errors import NotFound

TOKEN_SPARE_S = 300.0
"""A token outlives the time a boot may take by this."""
SPOT, ON_DEMAND = "spot", "on-demand"
UserData = Callable[[NodeClaim, Mapping[str, str]], str]


class Enroller(Protocol):
    """Gives and voids one-time tokens.

    A token asked for again leaves earlier unused ones of that name good: a machine may have been made with one.
    To revoke voids the credential too, and puts out whoever is joined with it; what is unknown is `NotFound`.
    """

    async def token(self, name: str, pool: str, ttl_s: float) -> str: ...
    async def revoke(self, name: str) -> None: ...


class Orders:
    """Makes them."""

    def __init__(self, *, enroller: Enroller, user_data: UserData, url_for_nodes: str) -> None:
        self._enroller, self._user_data, self._url_for_nodes = enroller, user_data, url_for_nodes
        self._tokens: dict[str, str] = {}

    async def order(self, claim: NodeClaim, policy: ScalePolicy) -> Order:
        """The order of this claim, the same however often.

        Raises:
            LedgerDown, EpochLost: no token could be given.
        """
        environ = self.environ(claim, policy, await self.token(claim, policy))
        return Order(
            claim=claim.id,
            name=claim.node,
            cluster=claim.cluster,
            pool=claim.pool,
            type=claim.rung.type,
            region=claim.rung.region,
            image=claim.rung.image,
            is_spot=claim.rung.is_spot,
            user_data=self._user_data(claim, environ),
            environ=environ,
            expires_at=claim.expires_at,
        )

    async def token(self, claim: NodeClaim, policy: ScalePolicy) -> str:
        """The one-time token of its node."""
        if claim.id not in self._tokens:
            ttl_s = policy.boot_limit_s + TOKEN_SPARE_S
            self._tokens[claim.id] = await self._enroller.token(claim.node, claim.pool, ttl_s)
        return self._tokens[claim.id]

    def environ(self, claim: NodeClaim, policy: ScalePolicy, token: str) -> dict[str, str]:
        """The settings of its node; the policy's own cannot replace who it is."""
        kind = SPOT if claim.rung.is_spot else ON_DEMAND
        return {
            **policy.environ,
            "MCPFLEET_NODE_NAME": claim.node,
            "MCPFLEET_NODE_POOL": claim.pool,
            "MCPFLEET_NODE_ORCHESTRATOR_URL": self._url_for_nodes,
            "MCPFLEET_NODE_ENROL_TOKEN": token,
            "MCPFLEET_NODE_CAPABILITIES": ",".join(sorted({kind, *policy.capabilities})),
            "MCPFLEET_NODE_LOCATION": claim.rung.region,
        }

    def forget(self, claim_id: str) -> None:
        """It has come, or will not."""
        self._tokens.pop(claim_id, None)

    async def void(self, claim: NodeClaim) -> None:
        """Nobody joins under this name any more.

        Raises:
            LedgerDown, EpochLost: it may still; say it again.
        """
        self.forget(claim.id)
        with suppress(NotFound):  # it never had any, or they were voided before a restart
            await self._enroller.revoke(claim.node)

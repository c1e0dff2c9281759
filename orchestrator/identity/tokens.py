"""Who a bearer token stands for: the fleet's static tokens, enrolments, and tokens of joined nodes.

Tokens are compared by digest, in constant time, and never logged.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.presented import Presented
from tasks.errors import NotAllowed
from tasks.invocation import Principal
from tasks.scopes import Role

ANY_NODE = "join token"
"""Id of the fleet-wide join token's bearer. No node can have this name: it has a space."""


def new_token(kind: str) -> str:
    """A token with 256 random bits. `kind` is a readable prefix: fleet, join, node or enrol."""
    return f"mcf_{kind}_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    """What is stored of a token. It has full entropy, so a slow hash would add nothing."""
    return hashlib.sha256(token.encode()).hexdigest()


def bound_digest(token: str, certificate: str | None) -> str:
    """What is stored of a node's token: it is good with the certificate that it was given to, and no other.

    Source: RFC 8705 section 3, certificate-bound tokens.
    """
    return digest(token if certificate is None else f"{token}\0{certificate}")


@dataclass(frozen=True, slots=True)
class Known:
    """A static token's digest and who it is."""

    digest: str
    principal: Principal


class Tokens:
    """An Authenticator: the fleet's own opaque tokens."""

    def __init__(
        self,
        known: tuple[Known, ...],
        node_of: Callable[[str], str | None],
        enrolled: Callable[[str], Principal | None],
        *,
        needs_certificate: bool = False,
    ) -> None:
        """`needs_certificate`: tokens of nodes are good with their node's certificate only; enrolling needs none."""
        self._known, self._node_of, self._enrolled = known, node_of, enrolled
        self._needs_certificate = needs_certificate

    async def principal(self, presented: Presented) -> Principal | None:
        """Who this is, or None for a token nobody issued."""
        principal = self._found(presented)
        is_node = principal is not None and not principal.roles.isdisjoint({Role.NODE, Role.JOIN})
        if principal is not None and is_node and self._needs_certificate and presented.node != principal.id:
            raise NotAllowed(
                f"the token of {principal.id!r} came with {_whose(presented)}; this fleet takes tokens of nodes with "
                "their own certificate only: enrol the node (mcpfleet node enrol)"
            )
        return principal

    def _found(self, presented: Presented) -> Principal | None:
        seen = digest(presented.token)
        for entry in self._known:
            if hmac.compare_digest(entry.digest, seen):
                return entry.principal
        node = self._node_of(bound_digest(presented.token, presented.certificate))
        if node is None:
            return self._enrolled(seen)
        return Principal(id=node, roles=frozenset({Role.NODE}), credential="node")


def _whose(presented: Presented) -> str:
    if presented.certificate is None:
        return "no certificate"
    return "a certificate of no node" if presented.node is None else f"the certificate of {presented.node!r}"


def static(fleet_token: str, join_token: str) -> tuple[Known, ...]:
    """The two tokens of a fleet: one for its doors, one for joining nodes."""
    return (
        Known(digest(fleet_token), Principal(id="operator", roles=frozenset({Role.ADMIN}), credential="static")),
        Known(digest(join_token), Principal(id=ANY_NODE, roles=frozenset({Role.JOIN}), credential="join token")),
    )

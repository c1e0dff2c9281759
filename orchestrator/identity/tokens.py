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
    ) -> None:
        self._known, self._node_of, self._enrolled = known, node_of, enrolled

    async def principal(self, presented: Presented) -> Principal | None:
        """Who this is, or None for a token nobody issued."""
        seen = digest(presented.token)
        for entry in self._known:
            if hmac.compare_digest(entry.digest, seen):
                return entry.principal
        node = self._node_of(seen)
        if node is None:
            return self._enrolled(seen)
        return Principal(id=node, roles=frozenset({Role.NODE}), credential="node")


def static(fleet_token: str, join_token: str) -> tuple[Known, ...]:
    """The two tokens of a fleet: one for its doors, one for joining nodes."""
    return (
        Known(digest(fleet_token), Principal(id="operator", roles=frozenset({Role.ADMIN}), credential="static")),
        Known(digest(join_token), Principal(id=ANY_NODE, roles=frozenset({Role.JOIN}), credential="join token")),
    )

"""Who sent a request: every kind of credential that is taken, behind one question.

Owns the order in which they are asked. Refuses to know any of them: each is an `Authenticator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from orchestrator.presented import Presented
from tasks.invocation import TRUST_LEAST, Principal

TOKEN_CHARS_MAX = 16_384
"""A longer token is nobody's: nothing parses it."""


class Authenticator(Protocol):
    """One kind of credential."""

    async def principal(self, presented: Presented) -> Principal | None:
        """Who this is; None where it is none of ours.

        Raises:
            NotAllowed: it is of our kind and not good, and the message says why.
        """
        ...


class Authenticators:
    """Satisfies both doors' Verifier."""

    def __init__(
        self, kinds: Sequence[Authenticator], trust: Callable[[Presented], int] = lambda _: TRUST_LEAST
    ) -> None:
        """`trust`: of a connection, for policies."""
        self._kinds, self._trust = tuple(kinds), trust

    async def verify(self, presented: Presented) -> Principal | None:
        """Who this is; None for a credential that nobody issued.

        Raises:
            NotAllowed: one that was issued and is not good any more, or not from here.
        """
        if not presented.token or len(presented.token) > TOKEN_CHARS_MAX:
            return None
        for kind in self._kinds:
            principal = await kind.principal(presented)
            if principal is not None:
                trust = self._trust(presented)
                return principal if trust == principal.trust else replace(principal, trust=trust)
        return None

"""A JWT as a bearer token at one of our doors: whose it is decides who checks it.

`iss` is compared with what the operator configured before anything is fetched or verified: a token cannot name an
address for us to call. Source: RFC 9068, section 4; RFC 8707 for the audience, which is this door's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from orchestrator.identity.oauth import claims as checked
from orchestrator.identity.oauth.claims import Expected
from orchestrator.identity.oauth.errors import BadToken
from orchestrator.identity.oauth.issuer import Issuer, principal_of
from orchestrator.identity.oauth.jose import Parsed, parse
from orchestrator.identity.oauth.own import OwnTokens
from orchestrator.identity.oauth.remote_keys import RemoteKeys
from orchestrator.identity.oauth.seen import Seen
from tasks.clock import Clock
from tasks.invocation import Principal

_DOTS = 2


class Shown(Protocol):
    """`orchestrator.identity.presented.Presented`, as this part reads it."""

    @property
    def token(self) -> str: ...
    @property
    def certificate(self) -> str | None: ...


class ForeignTokens:
    """Tokens of one issuer that the operator trusts."""

    def __init__(self, rules: Issuer, keys: RemoteKeys, *, clock: Clock, seen: Seen) -> None:
        self.rules, self._keys, self._clock, self._seen = rules, keys, clock, seen

    async def principal(self, parsed: Parsed, audiences: frozenset[str], certificate: str | None) -> Principal:
        """Who it stands for.

        Raises:
            BadToken: it opens nothing here.
            IssuerDown: it cannot be checked now.
        """
        rules = self.rules
        if parsed.header["alg"] not in rules.algorithms:
            raise BadToken(f"its algorithm is not one of {', '.join(rules.algorithms)}")
        types = frozenset(one.lower() for one in rules.types)
        checked.check_type(parsed.header, types)
        expected = Expected(rules.issuer, frozenset(rules.audiences) or audiences, types)
        # Before its issuer is asked for keys: what is not for us costs nobody a request.
        checked.check(parsed.claims, expected, certificate=certificate, now_s=self._clock.wall_s())
        self._seen.check(parsed, await self._keys.key(parsed.kid))
        return principal_of(rules, parsed.claims)

    async def close(self) -> None:
        """Ask its issuer no more."""
        await self._keys.close()


class JwtAuthenticator:
    """Every JWT that is shown at the doors of one resource."""

    def __init__(self, *, audiences: frozenset[str], own: OwnTokens | None, foreign: Iterable[ForeignTokens]) -> None:
        self._audiences = audiences
        self._by_issuer: dict[str, OwnTokens | ForeignTokens] = {one.rules.issuer: one for one in foreign}
        if own is not None:
            self._by_issuer[own.issuer] = own

    async def principal(self, presented: Shown) -> Principal | None:
        """Who it stands for; None for what is no JWT, and where no issuer is trusted.

        Raises:
            BadToken: a JWT that opens nothing here.
            IssuerDown: it cannot be checked now.
        """
        if presented.token.count(".") != _DOTS or not self._by_issuer:
            return None
        parsed = parse(presented.token)
        issuer = parsed.claims.get("iss")
        tokens = self._by_issuer.get(issuer) if isinstance(issuer, str) else None
        if tokens is None:
            raise BadToken("its issuer is not trusted here (iss)", "ask one of those that the metadata names")
        return await tokens.principal(parsed, self._audiences, presented.certificate)

"""Our own access tokens, read again: the authorization server's, checked against its clients and what was revoked.

Everything is in memory at whoever leads, and only the leader answers requests (replicas pass connections on to it),
so a revocation counts from the moment it is written.
"""

from __future__ import annotations

from orchestrator.identity.oauth import claims as checked
from orchestrator.identity.oauth.claims import Expected
from orchestrator.identity.oauth.clients import Clients, split
from orchestrator.identity.oauth.errors import BadToken
from orchestrator.identity.oauth.issuer import credential, words
from orchestrator.identity.oauth.jose import Parsed
from orchestrator.identity.oauth.revoked import Revoked
from orchestrator.identity.oauth.seen import Seen
from orchestrator.identity.oauth.signing import SigningKeys
from tasks.clock import Clock
from tasks.invocation import Principal

TYPES = frozenset({"at+jwt"})
"""Source: RFC 9068, section 4. An assertion or another JWT of the same key is no access token."""


class OwnTokens:
    """Tokens of the built-in authorization server."""

    def __init__(
        self, *, issuer: str, keys: SigningKeys, clients: Clients, revoked: Revoked, clock: Clock, seen: Seen
    ) -> None:
        self.issuer = issuer
        self._keys, self._clients, self._revoked, self._clock, self._seen = keys, clients, revoked, clock, seen

    async def principal(self, parsed: Parsed, audiences: frozenset[str], certificate: str | None) -> Principal:
        """Who it stands for.

        Raises:
            BadToken: it opens nothing here.
        """
        self.verify(parsed)
        expected = Expected(self.issuer, audiences, TYPES)
        checked.check(parsed.claims, expected, certificate=certificate, now_s=self._clock.wall_s())
        client = self._clients.active(checked.text(parsed.claims, "client_id"))
        if client is None or parsed.claims.get("sub") != client.id:
            raise BadToken("its client is not, or no longer, registered")
        if self._revoked.has(checked.text(parsed.claims, "jti")):
            raise BadToken("it was revoked")
        if parsed.claims.get("tenant") != client.tenant:
            raise BadToken("it is of another tenant than its client")
        scope = parsed.claims.get("scope")
        return Principal(
            id=client.id,
            tenant=client.tenant,
            roles=frozenset(words(parsed.claims.get("roles"))) & frozenset(client.roles.split()),
            scopes=split(client.scopes) if scope is None else frozenset(words(scope)),
            groups=split(client.groups) or frozenset(),
            credential=credential(parsed.claims),
        )

    def verify(self, parsed: Parsed) -> None:
        """Raises BadToken: no key that is in use signed it as an access token."""
        checked.check_type(parsed.header, TYPES)
        self._seen.check(parsed, self._keys.key(parsed.kid))

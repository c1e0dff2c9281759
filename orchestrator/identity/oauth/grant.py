"""The token endpoint's decision: what a client that proved who it is gets. Source: RFC 6749, section 4.4; RFC 8707.

Owns what is in an access token (RFC 9068). Refuses what goes beyond the client's registration, rather than
narrowing it in silence: who asks for too much shall hear of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.identity.oauth.clients import allowed, split
from orchestrator.identity.oauth.errors import OAuthError
from orchestrator.ledger.oauth_values import ClientRow


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the request asks for; None: it does not say."""

    resources: Sequence[str]
    scope: str | None


@dataclass(frozen=True, slots=True)
class Server:
    """What the authorization server knows of itself.

    Attributes:
        issuer: its URL.
        resources: of which it gives tokens: our doors.
        token_s: how long one is good, seconds.
    """

    issuer: str
    resources: tuple[str, ...]
    token_s: float


def grant(
    server: Server, client: ClientRow, wanted: Wanted, *, certificate: str | None, now_s: float
) -> dict[str, Any]:
    """The claims of the token.

    Args:
        server: who grants.
        client: who asks.
        wanted: what for.
        certificate: thumbprint of the certificate it came with; the token is bound to it.
        now_s: wall clock, seconds.

    Raises:
        OAuthError: invalid_target, invalid_scope.
    """
    audience = _audience(server, wanted.resources)
    scope = _scope(client, wanted.scope)
    groups = sorted(split(client.groups) or ())
    return {
        "iss": server.issuer,
        "sub": client.id,
        "client_id": client.id,
        "aud": audience[0] if len(audience) == 1 else audience,
        "iat": int(now_s),
        "exp": int(now_s + server.token_s),
        "jti": secrets.token_urlsafe(16),
        "tenant": client.tenant,
        "roles": client.roles.split(),
        **({"groups": groups} if groups else {}),
        **({} if scope is None else {"scope": scope}),
        **({} if certificate is None else {"cnf": {"x5t#S256": certificate}}),
    }


def _audience(server: Server, asked: Sequence[str]) -> list[str]:
    """The doors that were asked for; all of this server's where the request names none."""
    known = {url.rstrip("/"): url for url in server.resources}
    found = []
    for one in asked:
        if one.rstrip("/") not in known:
            raise OAuthError("invalid_target", f"no such resource here; there are {' and '.join(server.resources)}")
        found.append(known[one.rstrip("/")])
    return list(dict.fromkeys(found)) or list(server.resources)


def _scope(client: ClientRow, asked: str | None) -> str | None:
    if asked is None or not asked.split():
        return None if client.scopes is None else " ".join(sorted(allowed(client)))
    if beyond := sorted(set(asked.split()) - allowed(client)):
        raise OAuthError("invalid_scope", f"this client may not have {beyond[0][:80]!r}")
    return " ".join(sorted(set(asked.split())))

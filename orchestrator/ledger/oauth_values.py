"""What the ledger keeps for the authorization server, as values. `orchestrator/identity/oauth` knows what they mean."""

from __future__ import annotations

from dataclasses import dataclass

ASSERTION, TOKEN = "assertion", "token"
"""Kinds of what is spent: a client's assertion that was used, an access token that was revoked."""


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A registered client.

    Attributes:
        id: `client_id`.
        name: for people.
        tenant: of everything it does.
        roles: words between blanks.
        scopes: words between blanks; None: all that its roles allow.
        groups: words between blanks.
        secret_digest: SHA-256 of its secret, in hex; None: it signs with its key.
        previous_digest: of the secret before, good until `previous_until`.
        previous_until: wall clock, seconds.
        jwk_json: its public key.
        created_at: wall clock, seconds.
        created_by: the principal that registered it.
        revoked_at: wall clock, seconds; None: it may ask for tokens.
    """

    id: str
    name: str
    tenant: str
    roles: str
    scopes: str | None
    groups: str
    secret_digest: str | None
    previous_digest: str | None
    previous_until: float | None
    jwk_json: str | None
    created_at: float
    created_by: str
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class SigningKeyRow:
    """A key that signs tokens.

    Attributes:
        kid: its name in the JWK Set.
        created_at: wall clock, seconds; published since then.
        signs_from: wall clock, seconds; until its successor does.
        sealed: the private JWK under the key ring.
    """

    kid: str
    created_at: float
    signs_from: float
    sealed: str


@dataclass(frozen=True, slots=True)
class SpentRow:
    """An id that must not be taken again before `expires_at` (wall clock, seconds)."""

    kind: str
    id: str
    expires_at: float


def aad_of_signing_key(kid: str) -> bytes:
    """What a sealed signing key is bound to."""
    return b"oauth signing key\0" + kid.encode()

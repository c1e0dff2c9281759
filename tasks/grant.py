"""A grant: what AuthGuardian allowed, signed, and checked wherever it is used without asking anybody.

Owns the token's form and its strict reading. Refuses to know why something was granted, and whether it was
revoked since: `orchestrator/grants` does, and nodes hear of it (`GrantNews`).

The form is a compact JWS (RFC 7515, section 3.1) with one algorithm, `Ed25519` (RFC 9864), and one type. There is
nothing to negotiate: the header that a key signs with is the only one that is read, byte for byte, so `alg` cannot
be changed to `none` or to an HMAC under the public key (RFC 8725, section 3.1).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict

from tasks.errors import Permanent

ALGORITHM = "Ed25519"
TYPE = "mcpfleet-grant+jwt"
"""No other token of the fleet has it, so none can be taken for a grant (RFC 8725, section 3.11)."""
ISSUER = "mcpfleet/guard"
AUDIENCE = "mcpfleet/use"
LIFETIME_MAX_S = 7 * 86_400.0
"""A token that says it is good for longer is none, whoever signed it."""
LEEWAY_S = 5.0
"""Clocks of a fleet are this close (docs/adr/0010-fleet-clock.md); for the beginning, never for the end."""
TOKEN_CHARS_MAX = 8192
META_KEY = "io.mcpfleet/grant"
"""In a call's `_meta`: the token to the node; from the node to the tool's server, what it says."""
READ_ONLY = "read_only"
REVOKED = "grant_revoked"
"""Code of a call that was stopped because its grant was revoked while it ran."""
_CLAIMS = frozenset(
    {"iss", "aud", "sub", "tenant", "resource_type", "scope", "iat", "nbf", "exp", "jti", "restrictions"}
)
_PARTS = 3
Restriction = bool | int


class GrantInvalid(Permanent):
    """A token that allows nothing, or not this."""

    code = "grant_invalid"
    http_status = 403

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(f"the grant is not good: {detail}")
        self.why = why


@dataclass(frozen=True, slots=True)
class Grant:
    """What was allowed: to whom, of what, how far, and until when. Times are wall clock, seconds."""

    id: str
    agent: str
    tenant: str
    resource_type: str
    scope: frozenset[str]
    not_before: float
    expires_at: float
    restrictions: Mapping[str, Restriction] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """For the tool's server, and for people. The token itself goes no further."""
        return {
            "id": self.id,
            "agent": self.agent,
            "tenant": self.tenant,
            "resource_type": self.resource_type,
            "scope": sorted(self.scope),
            "expires_at": self.expires_at,
            "restrictions": dict(self.restrictions),
        }


class GrantKey(BaseModel):
    """A public key, as nodes are told it."""

    model_config = ConfigDict(frozen=True)
    id: str
    public: str
    """Ed25519, base64url."""


class GrantNews(BaseModel):
    """All that a node needs to know about grants; said when it knows another version."""

    model_config = ConfigDict(frozen=True)
    version: str
    keys: tuple[GrantKey, ...] = ()
    revoked: tuple[str, ...] = ()
    """Ids, until they would have expired, and ten minutes at least."""


class Signer:
    """One private key. It is made here, is never written down, and goes with its process."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        public = self._key.public_key().public_bytes_raw()
        self.key = GrantKey(id=sha256(public).hexdigest()[:16], public=_b64(public))

    def sign(self, grant: Grant) -> str:
        """The token. The same grant gives the same text (RFC 8032, section 5.1.6)."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": grant.agent,
            "tenant": grant.tenant,
            "resource_type": grant.resource_type,
            "scope": " ".join(sorted(grant.scope)),
            "iat": grant.not_before,
            "nbf": grant.not_before,
            "exp": grant.expires_at,
            "jti": grant.id,
            "restrictions": dict(grant.restrictions),
        }
        return self.seal(claims)

    def seal(self, claims: Mapping[str, Any]) -> str:
        """Any claims under our header; who reads them judges them."""
        head = f"{_header(self.key.id)}.{_b64(json.dumps(claims, separators=(',', ':')).encode())}"
        return f"{head}.{_b64(self._key.sign(head.encode()))}"


class GrantKeys:
    """The public keys that are good now."""

    def __init__(self, keys: Iterable[GrantKey] = ()) -> None:
        self._by_header = {_header(key.id): Ed25519PublicKey.from_public_bytes(_raw(key.public)) for key in keys}

    def read(self, token: str, now_s: float) -> Grant:
        """What a token grants now, if one of these keys signed it. Says nothing about revocation.

        Raises:
            GrantInvalid: `form`, `key`, `signature`, `claims`, `early` or `expired`.
        """
        grant = self._signed(token)
        if now_s >= grant.expires_at:
            raise GrantInvalid("expired", f"it expired {now_s - grant.expires_at:.0f} s ago; ask for another")
        if now_s < grant.not_before - LEEWAY_S:
            raise GrantInvalid("early", f"it begins in {grant.not_before - now_s:.0f} s")
        return grant

    def _signed(self, token: str) -> Grant:
        parts = token.split(".") if len(token) <= TOKEN_CHARS_MAX and token.isascii() else []
        if len(parts) != _PARTS:
            raise GrantInvalid("form", "this is no grant of AuthGuardian")
        key = self._by_header.get(parts[0])
        if key is None:
            raise GrantInvalid("key", "no key of this fleet has signed it, or its time is long over")
        try:
            payload, signature = _raw(parts[1]), _raw(parts[2])
            key.verify(signature, f"{parts[0]}.{parts[1]}".encode())
        except (ValueError, InvalidSignature):
            raise GrantInvalid("signature", "it was changed, or another key has signed it") from None
        return _grant_of(payload)


def check_use(grant: Grant, *, agent: str, tenant: str, resource_type: str, scope: frozenset[str]) -> None:
    """Whether this grant is one for this use.

    Args:
        grant: as read.
        agent: who calls, as the fleet authenticated it.
        tenant: for whom.
        resource_type: what is used.
        scope: what of it; all of it must be granted.

    Raises:
        GrantInvalid: `tenant`, `agent`, `resource` or `scope`.
    """
    if grant.tenant != tenant:
        raise GrantInvalid("tenant", "it was given in another tenant")
    if grant.agent != agent:
        raise GrantInvalid("agent", f"it was given to {grant.agent!r}, and {agent!r} shows it")
    if grant.resource_type != resource_type:
        raise GrantInvalid("resource", f"it is for {grant.resource_type}, not for {resource_type}")
    if missing := sorted(scope - grant.scope):
        held = ", ".join(sorted(grant.scope))
        raise GrantInvalid("scope", f"it does not cover {', '.join(missing)}, only {held}")


def _grant_of(payload: bytes) -> Grant:
    try:
        claims = json.loads(payload, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
        _check_claims(claims)
        return Grant(
            id=claims["jti"],
            agent=claims["sub"],
            tenant=claims["tenant"],
            resource_type=claims["resource_type"],
            scope=frozenset(claims["scope"].split()),
            not_before=claims["nbf"],
            expires_at=claims["exp"],
            restrictions=claims["restrictions"],
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise GrantInvalid("claims", f"what it says is not what a grant says ({type(error).__name__})") from None


def _check_claims(claims: dict[str, Any]) -> None:
    """Signed by us or not: what is not exactly a grant's is refused."""
    if claims.keys() != _CLAIMS or claims["iss"] != ISSUER or claims["aud"] != AUDIENCE:
        raise ValueError("not a grant's claims")
    texts, times = ("sub", "tenant", "resource_type", "scope", "jti"), ("iat", "nbf", "exp")
    if not all(isinstance(claims[name], str) and claims[name] for name in texts):
        raise ValueError("an empty claim")
    if not all(type(claims[name]) in {int, float} and math.isfinite(claims[name]) for name in times):
        raise ValueError("no time")
    if not 0 < claims["exp"] - claims["nbf"] <= LIFETIME_MAX_S:
        raise ValueError("a lifetime that is never given")
    if not isinstance(claims["restrictions"], dict):
        raise TypeError("restrictions")


def _header(key_id: str) -> str:
    return _b64(json.dumps({"alg": ALGORITHM, "typ": TYPE, "kid": key_id}, separators=(",", ":")).encode())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _raw(text: str) -> bytes:
    """Canonical only: no two texts are the same token (RFC 4648, section 3.5)."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if _b64(data) != text:
        raise ValueError("not the one way to write it")
    return data


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a claim twice")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(text)

"""One JWT taken apart and its signature checked. Source: RFC 7515, RFC 7519, RFC 8725.

Owns which algorithms and headers we take. Keys come from whoever knows the issuer, never from the token:
`jku`, `x5u`, `x5c` and `jwk` are not looked at (RFC 8725, section 3.10). joserfc does the arithmetic.
"""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from orchestrator.identity.oauth.errors import BadToken, ForgedToken

ALGORITHMS = ("ES256", "PS256", "RS256", "EdDSA")
"""Asymmetric only: with HS256 whoever can verify can sign, and a public key could be taken for a secret."""
TOKEN_MAX_CHARS = 8192
"""Looked at before anything is parsed. A token with a hundred groups has about 4,000."""
RSA_MIN_BITS = 2048
_PARTS = 3
_TYPES: Mapping[str, tuple[str, ...]] = {
    "EC": ("ES256",),
    "RSA": ("PS256", "RS256"),
    "OKP": ("EdDSA",),
}
_CURVES = {"EC": "P-256", "OKP": "Ed25519"}
PublicKey = ECKey | RSAKey | OKPKey


class _Registry(JWSRegistry):
    """Headers as long as issuers make them; EdDSA without a warning at each token: its name is older than RFC 9864."""

    max_header_length = 4096

    def get_alg(self, name: str) -> Any:  # noqa: ANN401 - joserfc's model of an algorithm
        """The algorithm, of those we name."""
        return self.algorithms[name] if name in ALGORITHMS else super().get_alg(name)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A token taken apart, nothing in it believed yet."""

    text: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def kid(self) -> str:
        """Names the key; `parse` has seen that it is there."""
        return str(self.header["kid"])


def parse(token: str, *, algorithms: Collection[str] = ALGORITHMS, needs_kid: bool = True) -> Parsed:
    """Header and claims, unverified, for choosing the issuer and the key.

    Raises:
        BadToken: too long, not a JWS of JSON objects, an algorithm or a header that we do not take.
    """
    if len(token) > TOKEN_MAX_CHARS:
        raise BadToken(f"it has {len(token)} characters, and {TOKEN_MAX_CHARS} is the limit")
    parts = token.split(".")
    if len(parts) != _PARTS or not token.isascii():
        raise BadToken("it is not a signed JWT")
    header, claims = _json(parts[0], "header"), _json(parts[1], "claims")
    if header.get("alg") not in ALGORITHMS or header["alg"] not in algorithms:
        raise BadToken(f"its algorithm is not one of {', '.join(algorithms)}")
    if "crit" in header or "b64" in header:
        raise BadToken("it demands an extension that is not known here (crit)")
    if not isinstance(header.get("kid", "" if not needs_kid else None), str):
        raise BadToken("it names no key (kid)")
    return Parsed(token, header, claims)


def check_signature(parsed: Parsed, key: PublicKey) -> None:
    """Raises BadToken, ForgedToken: this key did not sign it with the algorithm that it names."""
    algorithm = str(parsed.header["alg"])
    if algorithm not in _TYPES[key.key_type]:
        raise BadToken("its key is for another algorithm")
    wanted = key.get("alg")
    if wanted not in {None, algorithm}:
        raise BadToken("its key is for another algorithm")
    try:
        registry = _Registry(algorithms=[algorithm], strict_check_header=False)
        jws.deserialize_compact(parsed.text, key, algorithms=[algorithm], registry=registry)
    except (JoseError, ValueError) as error:
        raise ForgedToken("its signature is wrong") from error


def public_key(jwk: Mapping[str, Any]) -> PublicKey | None:
    """A key of a JWK Set that may verify tokens; None for one that we do not use.

    Symmetric keys, keys for encryption, other curves and short RSA keys are not used.
    """
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _TYPES or jwk.get("use", "sig") != "sig":
        return None
    if "verify" not in jwk.get("key_ops", ["verify"]) or jwk.get("crv") != _CURVES.get(kind):
        return None
    known = {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e", "kid", "alg") if name in jwk}
    try:
        key = _imported(kind, known)
        if isinstance(key, RSAKey) and key.raw_value.key_size < RSA_MIN_BITS:
            return None
    except (JoseError, ValueError, TypeError):
        return None
    return key


def _imported(kind: str, known: dict[str, Any]) -> PublicKey:
    if kind == "EC":
        return ECKey.import_key(known)
    return RSAKey.import_key(known) if kind == "RSA" else OKPKey.import_key(known)


def _json(part: str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(
            urlsafe_b64decode(part + "=" * (-len(part) % 4)), object_pairs_hook=_once, parse_constant=_no_constant
        )
    except (ValueError, binascii.Error, RecursionError):
        raise BadToken(f"its {what} cannot be read") from None
    if not isinstance(found, dict):
        raise BadToken(f"its {what} are no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers of a doubled member may read two tokens: RFC 7519, section 4."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")

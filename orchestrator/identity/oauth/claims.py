"""The claims of an access token, checked. Pure. Source: RFC 7519, section 4.1; RFC 9068, section 4; RFC 8705.

Everything is refused that is missing: a token without `exp` would be good for ever, one without `aud` was
made for nobody in particular.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.identity.oauth.errors import BadToken

LIFETIME_MAX_S = 3600.0
"""Longer tokens are refused: what was stolen opens doors as long."""
LEEWAY_S = 10.0
"""By how much the issuer's clock and ours may differ."""
NAME_MAX_CHARS = 200


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say.

    Attributes:
        issuer: `iss`, exactly.
        audiences: one of these is in `aud`, exactly.
        types: values of the header `typ`, in lower case and without `application/`.
    """

    issuer: str
    audiences: frozenset[str]
    types: frozenset[str]


def check_type(header: Mapping[str, Any], types: Collection[str]) -> None:
    """Raises BadToken: another kind of JWT, an ID token for example. Source: RFC 8725, section 3.11."""
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in types:
        raise BadToken(f"it is not of the type {' or '.join(sorted(types))} (typ)")


def check(claims: Mapping[str, Any], expected: Expected, *, certificate: str | None, now_s: float) -> None:
    """Every check that needs no key.

    Args:
        claims: of a token whose signature holds.
        expected: what it must say.
        certificate: thumbprint of the caller's certificate (`x5t#S256`), None without one.
        now_s: wall clock, seconds.

    Raises:
        BadToken: naming the claim.
    """
    if claims.get("iss") != expected.issuer:
        raise BadToken("it is of another issuer (iss)")
    check_audience(claims, expected.audiences)
    check_times(claims, now_s=now_s, lifetime_max_s=LIFETIME_MAX_S)
    _check_binding(claims, certificate)


def check_audience(claims: Mapping[str, Any], audiences: Collection[str]) -> None:
    """Raises BadToken: it is not for us. Compared as strings: RFC 7519, section 4.1.3."""
    found = claims.get("aud")
    named = [found] if isinstance(found, str) else found
    if not isinstance(named, list) or not any(isinstance(one, str) and one in audiences for one in named):
        raise BadToken("it is for another audience (aud)", "ask for one with the `resource` of this server")


def check_times(claims: Mapping[str, Any], *, now_s: float, lifetime_max_s: float) -> None:
    """Raises BadToken: over, not begun, good for too long, or silent about it."""
    expires_s, issued_s = _number(claims, "exp"), _number(claims, "iat")
    starts_s = _number(claims, "nbf") if "nbf" in claims else issued_s
    if expires_s <= now_s - LEEWAY_S:
        raise BadToken(f"it expired {now_s - expires_s:.0f} s ago (exp)")
    if max(issued_s, starts_s) > now_s + LEEWAY_S:
        raise BadToken("it is not good yet (nbf, iat)", "compare the clocks of the issuer and of this server")
    if expires_s - issued_s > lifetime_max_s or expires_s - now_s > lifetime_max_s + LEEWAY_S:
        raise BadToken(f"it is good for longer than {lifetime_max_s:.0f} s (exp)", "have the issuer make shorter ones")


def text(claims: Mapping[str, Any], name: str) -> str:
    """A claim that is a name. Raises BadToken: it is missing, or nothing that we would write down."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= NAME_MAX_CHARS or not value.isprintable():
        raise BadToken(f"its {name} is not a name of 1 to {NAME_MAX_CHARS} characters")
    return value


def _check_binding(claims: Mapping[str, Any], certificate: str | None) -> None:
    """A bound token is no bearer token. Source: RFC 8705, section 3; RFC 7800 for other ways, which we do not know."""
    if "cnf" not in claims:
        return
    bound = claims["cnf"]
    if not isinstance(bound, dict) or set(bound) != {"x5t#S256"} or not isinstance(bound["x5t#S256"], str):
        raise BadToken("it is bound to a key in a way that is not known here (cnf)")
    if certificate is None or not hmac.compare_digest(bound["x5t#S256"].encode(), certificate.encode()):
        raise BadToken("it is bound to another certificate (cnf)", "connect with the certificate that it was made for")


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadToken(f"it does not say when ({name})")
    return float(value)

"""Grants under attack: tokens that are not what they seem."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.grant import AUDIENCE, ISSUER, LEEWAY_S, LIFETIME_MAX_S, Grant, GrantInvalid, GrantKeys, Signer, check_use

NOW = 1_800_000_000.0
ALPHABET = f"{string.ascii_letters}{string.digits}-_"
GRANT = Grant(
    "g1", "ann", "default", "SAP_API", frozenset({"orders:read"}), NOW, NOW + 600, {"max_rows": 10, "audit": True}
)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _claims(**changes: Any) -> dict[str, Any]:
    said = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "tenant": "default", "resource_type": "SAP_API",
        "scope": "orders:read", "iat": NOW, "nbf": NOW, "exp": NOW + 600, "jti": "g1", "restrictions": {},
    }  # fmt: skip
    return {name: value for name, value in (said | changes).items() if value is not None}


# ---------------------------------------------------------------- tokens


def test_a_grant_says_what_was_granted() -> None:
    """The one case that is good, or every refusal below would prove nothing."""
    signer = Signer()
    read = GrantKeys([signer.key]).read(signer.sign(GRANT), NOW + 1)
    assert read == GRANT
    check_use(read, agent="ann", tenant="default", resource_type="SAP_API", scope=frozenset({"orders:read"}))


def test_every_changed_character_is_noticed() -> None:
    """Also the last ones of each part, whose spare bits base64 would forgive."""
    signer = Signer()
    token, keys = signer.sign(GRANT), GrantKeys([signer.key])
    ends = {at - 1 for at, one in enumerate(f"{token}.") if one == "."}
    for at, one in enumerate(token):
        for other in set(ALPHABET if at in ends else "ABw_.") - {one}:
            with pytest.raises(GrantInvalid):
                keys.read(token[:at] + other + token[at + 1 :], NOW + 1)
        for changed in (token[:at] + token[at + 1 :], token[:at] + one + token[at:]):
            with pytest.raises(GrantInvalid):
                keys.read(changed, NOW + 1)


@given(st.text(max_size=300) | st.lists(st.text(max_size=40), min_size=3, max_size=3).map(".".join))
def test_what_is_no_token_is_refused_in_words(text: str) -> None:
    """No other error, whatever comes."""
    with pytest.raises(GrantInvalid):
        GrantKeys([Signer().key]).read(text, NOW)


def _headed(head: dict[str, Any], sign: Any) -> str:
    text = f"{_b64(json.dumps(head, separators=(',', ':')).encode())}.{_b64(json.dumps(_claims()).encode())}"
    return f"{text}.{sign(text.encode())}"


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "EdDSA", "ES256", "ed25519"])
def test_no_other_algorithm_is_read(alg: str) -> None:
    """Neither `none` without a signature, nor an HMAC keyed with what everybody knows: the public key."""
    signer = Signer()
    keys, public = GrantKeys([signer.key]), base64.urlsafe_b64decode(signer.key.public + "=")
    head = {"alg": alg, "typ": "mcpfleet-grant+jwt", "kid": signer.key.id}
    for sign in (
        lambda _: "",
        lambda data: _b64(hmac.digest(public, data, hashlib.sha256)),
        lambda data: _b64(hmac.digest(signer.key.public.encode(), data, hashlib.sha256)),
        lambda data: _b64(signer._key.sign(data)),
    ):
        with pytest.raises(GrantInvalid) as refused:
            keys.read(_headed(head, sign), NOW + 1)
        assert refused.value.why == "key"


@pytest.mark.parametrize("more", [{"jwk": {"kty": "OKP"}}, {"crit": ["exp"]}, {"jku": "https://evil.example/k"}])
def test_a_header_that_says_more_is_no_header_of_ours(more: dict[str, Any]) -> None:
    """Not even under our own signature: nothing in it is followed."""
    signer = Signer()
    head = {"alg": "Ed25519", "typ": "mcpfleet-grant+jwt", "kid": signer.key.id} | more
    with pytest.raises(GrantInvalid):
        GrantKeys([signer.key]).read(_headed(head, lambda data: _b64(signer._key.sign(data))), NOW + 1)


def test_a_forged_grant_under_the_name_of_our_key_is_refused() -> None:
    """Another key signs, and says that it is ours."""
    signer, forger = Signer(), Signer()
    forged = forger.sign(GRANT).split(".")
    ours = signer.sign(GRANT).split(".")
    with pytest.raises(GrantInvalid) as refused:
        GrantKeys([signer.key]).read(f"{ours[0]}.{forged[1]}.{forged[2]}", NOW + 1)
    assert refused.value.why == "signature"
    with pytest.raises(GrantInvalid):
        GrantKeys([signer.key]).read(".".join(forged), NOW + 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None}, {"aud": "other"}, {"aud": [AUDIENCE]}, {"iss": "other"}, {"jti": None}, {"sub": ""},
        {"exp": NOW + LIFETIME_MAX_S + 1}, {"exp": NOW}, {"exp": NOW - 1}, {"exp": True}, {"exp": "9999999999"},
        {"exp": math.inf}, {"exp": math.nan}, {"nbf": None}, {"tenant": None}, {"tenant": 1}, {"scope": ""},
        {"restrictions": None}, {"restrictions": []}, {"admin": True},
    ],
)  # fmt: skip
def test_our_own_signature_under_other_claims_grants_nothing(changes: dict[str, Any]) -> None:
    """A lifetime is required and bounded, and what is not exactly a grant's is not read as one."""
    signer = Signer()
    with pytest.raises(GrantInvalid) as refused:
        GrantKeys([signer.key]).read(signer.seal(_claims(**changes)), NOW + 1)
    assert refused.value.why == "claims"


def test_its_time_is_kept() -> None:
    """Not before its beginning, but for what clocks may differ; not at its end, by nothing."""
    signer = Signer()
    token, keys = signer.sign(GRANT), GrantKeys([signer.key])
    assert keys.read(token, NOW - LEEWAY_S) == keys.read(token, NOW + 599.9) == GRANT
    for at, why in ((NOW - LEEWAY_S - 0.1, "early"), (NOW + 600, "expired"), (NOW + 10**9, "expired")):
        with pytest.raises(GrantInvalid) as refused:
            keys.read(token, at)
        assert refused.value.why == why


@pytest.mark.parametrize(
    ("use", "why"),
    [
        ({"agent": "ben"}, "agent"),
        ({"tenant": "other"}, "tenant"),
        ({"resource_type": "FINANCIAL_API"}, "resource"),
        ({"scope": frozenset({"orders:read", "orders:write"})}, "scope"),
        ({"scope": frozenset({"*"})}, "scope"),
    ],
)
def test_a_grant_is_good_for_its_own_use_only(use: dict[str, Any], why: str) -> None:
    """Another agent's, another tenant's, another resource's, a wider scope."""
    good: dict[str, Any] = {"agent": "ann", "tenant": "default", "resource_type": "SAP_API", "scope": frozenset()}
    check_use(GRANT, **good)
    with pytest.raises(GrantInvalid) as refused:
        check_use(GRANT, **good | use)
    assert refused.value.why == why

"""The keys of a foreign issuer: how old they may be, who asks for them and how often."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, RSAKey

from orchestrator.identity.oauth.errors import BadToken, IssuerDown
from orchestrator.identity.oauth.fetch import is_safe
from orchestrator.identity.oauth.jose import public_key
from orchestrator.identity.oauth.remote_keys import COOL_DOWN_S, FRESH_S, KEPT_S, RemoteKeys
from orchestrator.testing.oauth import FakeIssuer
from tasks.testing.clock import FakeClock

WITHIN_S = 60.0


def keys_of(issuer: FakeIssuer, clock: FakeClock) -> RemoteKeys:
    """Of that issuer."""
    return RemoteKeys(issuer.url, issuer.fetch, clock)


async def settled(keys: RemoteKeys) -> None:
    """What was asked for beside is answered."""
    if keys._asking is not None:
        await asyncio.wait_for(asyncio.shield(keys._asking), WITHIN_S)


async def test_a_withdrawn_key_is_refused_after_the_age_limit() -> None:
    """Nobody uses its tokens, so nothing makes us look: its time is over all the same."""
    clock, issuer = FakeClock(), FakeIssuer()
    keys = keys_of(issuer, clock)
    await keys.key("k1")
    issuer.keys = {"k2": ECKey.generate_key("P-256", private=True)}
    clock.advance(FRESH_S - 1)
    await keys.key("k1")  # not known to be withdrawn yet
    clock.advance(KEPT_S - FRESH_S + 1)
    with pytest.raises(BadToken, match="kid"):
        await keys.key("k1")
    assert await keys.key("k2")


async def test_a_busy_door_learns_of_a_withdrawn_key_sooner() -> None:
    """Beside the calls, once the keys are not fresh: nobody waits for it."""
    clock, issuer = FakeClock(), FakeIssuer()
    keys = keys_of(issuer, clock)
    await keys.key("k1")
    issuer.keys = {"k2": ECKey.generate_key("P-256", private=True)}
    clock.advance(FRESH_S)
    await keys.key("k1")
    await settled(keys)
    with pytest.raises(BadToken):
        await keys.key("k1")


async def test_a_new_key_is_found_at_once_and_then_not_sought_again_soon() -> None:
    """A rotation is not noticed by callers; invented names cost the issuer one request per cool-down."""
    clock, issuer = FakeClock(), FakeIssuer()
    keys = keys_of(issuer, clock)
    await keys.key("k1")
    issuer.keys["k2"] = ECKey.generate_key("P-256", private=True)
    clock.advance(COOL_DOWN_S)
    assert await keys.key("k2")
    asked = len(issuer.asked)
    for name in ("x1", "x2"):
        with pytest.raises(BadToken):
            await keys.key(name)
    assert len(issuer.asked) == asked
    clock.advance(COOL_DOWN_S)
    with pytest.raises(BadToken):
        await keys.key("x1")
    assert len(issuer.asked) == asked + 2


async def test_an_issuer_that_is_down_is_not_noticed_until_the_age_limit() -> None:
    """Then it is 503 and not 401: the token may be good."""
    clock, issuer = FakeClock(), FakeIssuer()
    keys = keys_of(issuer, clock)
    await keys.key("k1")
    issuer.is_down = True
    for _ in range(4):
        clock.advance((KEPT_S - 1) / 4)
        assert await keys.key("k1")
        await settled(keys)
    clock.advance(2)
    with pytest.raises(IssuerDown) as caught:
        await keys.key("k1")
    assert (caught.value.http_status, caught.value.code) == (503, "issuer_down")
    asked = len(issuer.asked)
    with pytest.raises(IssuerDown):
        await keys.key("k1")
    assert len(issuer.asked) == asked  # who is down is not asked by each call
    issuer.is_down = False
    clock.advance(6)
    assert await keys.key("k1")


async def test_a_new_key_while_the_issuer_is_down_is_503() -> None:
    """Whether there is such a key cannot be told."""
    clock, issuer = FakeClock(), FakeIssuer()
    keys = keys_of(issuer, clock)
    await keys.key("k1")
    issuer.is_down = True
    clock.advance(COOL_DOWN_S)
    with pytest.raises(IssuerDown):
        await keys.key("k2")
    assert await keys.key("k1")


async def test_many_callers_are_one_question() -> None:
    """A hundred calls at the start ask the issuer once, and one that leaves takes nobody's answer away."""
    clock, issuer = FakeClock(), FakeIssuer()
    gate = asyncio.Event()

    async def slow(url: str) -> dict[str, Any]:
        await gate.wait()
        return await issuer.fetch(url)

    keys = RemoteKeys(issuer.url, slow, clock)
    callers = [asyncio.create_task(keys.key("k1")) for _ in range(100)]
    await asyncio.sleep(0)
    callers[0].cancel()
    gate.set()
    found = await asyncio.wait_for(asyncio.gather(*callers, return_exceptions=True), WITHIN_S)
    assert isinstance(found[0], asyncio.CancelledError)
    assert len({id(key) for key in found[1:]}) == 1
    assert len(issuer.asked) == 2


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"issuer": "https://issuer.example/realms/acme/"},
        {"jwks_uri": "http://issuer.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user@issuer.example/keys"},
        {"jwks_uri": None},
    ],
)
async def test_metadata_that_is_not_its_own_is_not_used(metadata: dict[str, Any]) -> None:
    """The document must name the issuer that was configured, and keys that nobody can change on the way."""
    issuer = FakeIssuer(metadata=metadata)
    with pytest.raises(IssuerDown):
        await keys_of(issuer, FakeClock()).key("k1")
    assert issuer.asked == [f"{issuer.url}/.well-known/openid-configuration"]


def test_which_keys_are_used() -> None:
    """Public keys for signatures, of the kinds that our algorithms have."""
    good = ECKey.generate_key("P-256", private=True).as_dict(private=False)
    assert public_key(good)
    assert public_key(RSAKey.generate_key(2048, private=True).as_dict(private=False))
    assert not public_key(good | {"use": "enc"})
    assert not public_key(good | {"key_ops": ["encrypt"]})
    assert not public_key(ECKey.generate_key("P-384", private=True).as_dict(private=False))
    assert not public_key(OctKey.generate_key(256).as_dict())
    assert not public_key({"kty": "EC", "crv": "P-256", "x": "no", "y": "no"})
    with pytest.warns(SecurityWarning):
        assert not public_key({"kty": "RSA", "n": "sXchLm1Z", "e": "AQAB"})


def test_which_addresses_are_asked() -> None:
    """Https, or this machine."""
    assert is_safe("https://issuer.example/a")
    assert is_safe("http://127.0.0.1:9/a")
    assert is_safe("http://[::1]:9/a")
    assert not is_safe("http://issuer.example/a")
    assert not is_safe("http://127.0.0.1.evil.example/a")
    assert not is_safe("http://127.0.0.1@evil.example/a")
    assert not is_safe("https://issuer.example:x/a")
    assert not is_safe("ftp://issuer.example/a")
    assert not is_safe("https:///a")

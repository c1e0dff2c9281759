"""The authorization server's own keys: when each signs and goes, and what of it the database has."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orchestrator.identity.oauth.errors import BadToken
from orchestrator.identity.oauth.jose import parse
from orchestrator.identity.oauth.schedule import SLACK_S, Terms
from orchestrator.identity.oauth.signing import SigningKeys
from orchestrator.testing.oauth import MemoryBooks
from tasks.errors import Permanent
from tasks.testing.clock import FakeClock

TERMS = Terms(token_s=300, rotate_s=30 * 86_400, publish_s=86_400)


class Ring:
    """A key ring of one key."""

    def __init__(self) -> None:
        self._key = AESGCM(secrets.token_bytes(32))

    def seal(self, plain: bytes, *, aad: bytes) -> str:
        """Encrypt."""
        nonce = secrets.token_bytes(12)
        return (nonce + self._key.encrypt(nonce, plain, aad)).hex()

    def open(self, sealed: str, *, aad: bytes) -> bytes:
        """Decrypt. Raises Permanent."""
        data = bytes.fromhex(sealed)
        try:
            return self._key.decrypt(data[:12], data[12:], aad)
        except InvalidTag:
            raise Permanent("not as sealed") from None


def kids(keys: SigningKeys) -> set[str]:
    """What is published."""
    return {key["kid"] for key in keys.jwks()["keys"]}


async def leading(books: MemoryBooks, clock: FakeClock, ring: Ring | None) -> SigningKeys:
    """Keys of whoever leads now."""
    keys = SigningKeys(store=books, sealer=ring, clock=clock, terms=TERMS)
    await keys.restore()
    return keys


def signer(keys: SigningKeys) -> str:
    """The key that signs now."""
    return parse(keys.sign({"sub": "x"})).kid


async def test_a_life_of_keys() -> None:
    """Published a day before it signs; its predecessor is kept until the last of its tokens is over."""
    clock = FakeClock()
    keys = await leading(MemoryBooks(clock), clock, Ring())
    first = signer(keys)
    clock.advance(TERMS.rotate_s - TERMS.publish_s - 1)
    await keys.tend()
    assert kids(keys) == {first}
    clock.advance(1)
    await keys.tend()
    (second,) = kids(keys) - {first}
    assert signer(keys) == first
    clock.advance(TERMS.publish_s)
    await keys.tend()
    assert signer(keys) == second
    assert kids(keys) == {first, second}
    clock.advance(TERMS.token_s + SLACK_S)
    await keys.tend()
    assert kids(keys) == {second}


async def test_a_leader_that_was_away_still_publishes_first() -> None:
    """An orchestrator that was off when rotation was due gives verifiers their time all the same."""
    clock, books, ring = FakeClock(), MemoryBooks(FakeClock()), Ring()
    first = signer(await leading(books, clock, ring))
    clock.advance(3 * TERMS.rotate_s)
    keys = await leading(books, clock, ring)
    assert (signer(keys), len(kids(keys))) == (first, 2)


async def test_rotation_at_once() -> None:
    """The new key signs now; the old one is kept for its tokens, unless it is withdrawn."""
    clock = FakeClock()
    books = MemoryBooks(clock)
    keys = await leading(books, clock, Ring())
    first = signer(keys)
    clock.advance(1)
    second = await keys.rotate(withdraw=False)
    assert signer(keys) == second
    assert keys.key(first)
    clock.advance(1)
    third = await keys.rotate(withdraw=True)
    assert kids(keys) == {third} == set(books.key_rows)
    with pytest.raises(BadToken):
        keys.key(first)


async def test_a_successor_signs_with_the_same_keys() -> None:
    """Another replica that takes over opens what the first one sealed."""
    clock = FakeClock()
    books, ring = MemoryBooks(clock), Ring()
    assert signer(await leading(books, clock, ring)) == signer(await leading(books, clock, ring))


async def test_no_private_key_is_in_the_database_in_plain() -> None:
    """Sealed, or not there at all."""
    clock = FakeClock()
    books = MemoryBooks(clock)
    keys = await leading(books, clock, Ring())
    (key,) = keys._keys.values()
    assert str(key.private.as_dict(private=True)["d"]) not in json.dumps([vars_of(row) for row in await books.keys()])
    books = MemoryBooks(clock)
    keys = await leading(books, clock, None)
    assert not books.key_rows
    assert signer(keys)


async def test_a_key_that_somebody_else_put_there_is_not_used() -> None:
    """Whoever can write to the database cannot sign: a key sealed with another ring, or moved, does not open."""
    clock = FakeClock()
    books, ring = MemoryBooks(clock), Ring()
    await leading(books, clock, Ring())
    (foreign,) = books.key_rows.values()
    own = signer(await leading(books, clock, ring))
    books.key_rows["moved"] = replace(books.key_rows[own], kid="moved")
    keys = await leading(books, clock, ring)
    assert kids(keys) == {own}
    assert foreign.kid in books.key_rows


def vars_of(row: object) -> dict[str, object]:
    """A row's values."""
    return {name: getattr(row, name) for name in ("kid", "created_at", "signs_from", "sealed")}

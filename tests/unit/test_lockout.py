"""Guessing is slowed down, and only for who guesses."""

from __future__ import annotations

import pytest

from orchestrator.identity.lockout import FIRST_S, LONGEST_S, PEERS_MAX, TRIES, WINDOW_S, LockedOut, Lockout

PEER, OTHER = "192.0.2.7", "192.0.2.8"


def _guess(lockout: Lockout, now_s: float, peer: str = PEER, prefix: str = "") -> float | None:
    """As many different wrong credentials as it takes."""
    told = [lockout.wrong(peer, f"{prefix}{now_s}-{number}", now_s) for number in range(TRIES)]
    assert told[:-1] == [None] * (TRIES - 1)
    return told[-1]


def test_many_different_wrong_credentials_lock_their_address() -> None:
    """Until the seconds are over, said with the seconds that are left."""
    lockout = Lockout()
    lockout.check(PEER, "x", 0.0)
    assert _guess(lockout, 0.0) == FIRST_S
    with pytest.raises(LockedOut) as refused:
        lockout.check(PEER, "anything", 2.0)
    assert (refused.value.http_status, refused.value.retry_after_s) == (429, FIRST_S - 2.0)
    lockout.check(PEER, "anything", FIRST_S)


def test_another_address_is_never_concerned() -> None:
    """So nobody can lock out the owner of a credential that he knows."""
    lockout = Lockout()
    _guess(lockout, 0.0)
    lockout.check(OTHER, "anything", 1.0)


def test_who_was_good_at_a_shared_address_goes_on() -> None:
    """Behind a NAT or a proxy one who guesses stops nobody who was there before; once wrong, it is not good."""
    lockout = Lockout()
    lockout.good(PEER, "good")
    _guess(lockout, 0.0)
    lockout.check(PEER, "good", 1.0)
    lockout.wrong(PEER, "good", 1.0)
    with pytest.raises(LockedOut):
        lockout.check(PEER, "good", 1.0)


def test_the_same_wrong_credential_again_is_a_mistake() -> None:
    """A node with an old token says it every two seconds; that guesses nothing."""
    lockout = Lockout()
    assert [lockout.wrong(PEER, "old", float(at)) for at in range(1000)] == [None] * 1000
    lockout.check(PEER, "old", 1000.0)


def test_slow_mistakes_lock_nobody() -> None:
    """Each window counts anew."""
    lockout = Lockout()
    assert all(lockout.wrong(PEER, f"t{n}", n * WINDOW_S / (TRIES - 1)) is None for n in range(TRIES * 10))


def test_locks_grow_and_are_forgiven() -> None:
    """Twice as long each time, up to the longest; short again after a quiet hour."""
    lockout, now_s, seen = Lockout(), 0.0, []
    for _ in range(12):
        lock_s = _guess(lockout, now_s)
        assert lock_s is not None
        seen.append(lock_s)
        now_s += lock_s + WINDOW_S
    assert seen[:4] == [FIRST_S, FIRST_S * 2, FIRST_S * 4, FIRST_S * 8]
    assert seen[-1] == LONGEST_S
    assert _guess(lockout, now_s + 2 * 3600.0) == FIRST_S


def test_memory_is_bounded() -> None:
    """However many addresses guess."""
    lockout = Lockout()
    for number in range(PEERS_MAX + 500):
        lockout.wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "t", 0.0)
        lockout.good(PEER, f"g{number}")
    assert len(lockout._peers) == PEERS_MAX
    for number in range(TRIES * 50):
        lockout.wrong(PEER, f"w{number}", 0.0)
    assert all(len(peer.wrong) <= TRIES for peer in lockout._peers.values())


@pytest.mark.parametrize(
    ("one", "two"), [("2001:db8::1", "2001:db8::ffff:2"), ("::ffff:192.0.2.7", "192.0.2.7"), (None, None)]
)
def test_addresses_of_one_customer_are_one(one: str | None, two: str | None) -> None:
    """An IPv6 network has more addresses than anybody can count."""
    lockout = Lockout()
    for number in range(TRIES):
        lockout.wrong(one if number % 2 else two, f"t{number}", 0.0)
    with pytest.raises(LockedOut):
        lockout.check(two, "x", 0.0)

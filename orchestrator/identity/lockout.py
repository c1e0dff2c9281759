"""Guessing of credentials: who shows too many different wrong ones has to wait, ever longer.

Pure, on a passed-in clock, in bounded memory. Counted are *different* wrong credentials of one address: a client
that says the same old token again and again is mistaken, not guessing. A credential that was good from an address
lately passes while that address is locked, so that whoever shares it (a NAT, a proxy) can go on; and other
addresses are never concerned, so that nobody can lock out a credential's owner.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from tasks.errors import NotAllowed

TRIES = 20
"""Different wrong credentials within the window. A hundred nodes behind one address lose theirs one at a time."""
WINDOW_S = 60.0
FIRST_S, LONGEST_S = 5.0, 900.0
"""Of a lock: doubled by each that follows within `FORGIVEN_S`."""
FORGIVEN_S = 3600.0
PEERS_MAX, GOOD_MAX = 4096, 8192
"""The oldest go first: about 2 MB in all."""


class LockedOut(NotAllowed):
    """Too many different wrong credentials came from this address."""

    code = "locked_out"
    http_status = 429

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(
            f"too many different credentials that nobody knows came from your address; try again in "
            f"{retry_after_s:.0f} s, with one that is good"
        )
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Peer:
    since_s: float
    wrong: set[int] = field(default_factory=set)
    locked_until_s: float = 0.0
    locks: int = 0


class Lockout:
    """What is known of addresses."""

    def __init__(self, *, tries: int = TRIES, window_s: float = WINDOW_S) -> None:
        self._tries, self._window_s = tries, window_s
        self._peers: OrderedDict[str, _Peer] = OrderedDict()
        self._good: OrderedDict[tuple[str, int], None] = OrderedDict()

    def check(self, peer: str | None, token: str, now_s: float) -> None:
        """Before anything is looked up.

        Raises:
            LockedOut: not before its seconds are over.
        """
        place = _place(peer)
        known = self._peers.get(place)
        if known is None or known.locked_until_s <= now_s or (place, _mark(token)) in self._good:
            return
        raise LockedOut(known.locked_until_s - now_s)

    def wrong(self, peer: str | None, token: str, now_s: float) -> float | None:
        """A credential was refused; the seconds of the lock that begins with it, or None."""
        place, mark = _place(peer), _mark(token)
        self._good.pop((place, mark), None)
        known = self._peers.get(place)
        if known is None or (now_s - known.since_s >= self._window_s and now_s >= known.locked_until_s):
            locks = known.locks if known is not None and now_s - known.locked_until_s < FORGIVEN_S else 0
            known = _Peer(now_s, locked_until_s=known.locked_until_s if known else 0.0, locks=locks)
            self._peers[place] = known
        self._peers.move_to_end(place)
        while len(self._peers) > PEERS_MAX:
            self._peers.popitem(last=False)
        known.wrong.add(mark)
        if len(known.wrong) < self._tries:
            return None
        lock_s: float = min(FIRST_S * 2**known.locks, LONGEST_S)
        known.locks, known.locked_until_s = min(known.locks + 1, 30), now_s + lock_s
        known.wrong, known.since_s = set(), now_s
        return lock_s

    def good(self, peer: str | None, token: str) -> None:
        """A credential was good."""
        key = (_place(peer), _mark(token))
        if key in self._good:
            return
        self._good[key] = None
        while len(self._good) > GOOD_MAX:
            self._good.popitem(last=False)


@lru_cache(maxsize=PEERS_MAX)
def _place(peer: str | None) -> str:
    """An address; of IPv6 the network that one customer has (RFC 6177: at least a /64)."""
    if peer is None:
        return "local"
    try:
        address = ip_address(peer)
    except ValueError:
        return peer[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{address.packed[:8].hex()}/64"
    return str(address)


def _mark(token: str) -> int:
    """Not the token: Python's keyed hash of it, which means nothing outside this process. Source: PEP 456."""
    return hash(token)

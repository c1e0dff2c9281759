"""Challenge and response: an agent proves that it holds a private key, and gets a token for minutes.

connect with the key's id → a nonce → the nonce signed → a session token. Owns nonces and sessions, both in memory:
after a change of leader an agent asks for another. A nonce is good once, for a minute, for the key it was made for.
The signature covers the name under which the agent reached the server, so that nobody in between can pass a nonce
of this server on and use the answer. Source: docs/adr/0018-identity.md; RFC 8032 (Ed25519).
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from orchestrator.identity.tokens import digest, new_token
from orchestrator.ledger.key_values import KeyRow
from orchestrator.presented import Presented
from tasks.clock import Clock
from tasks.errors import NotAllowed
from tasks.invocation import Principal

NONCE_TTL_S = 60.0
SESSION_TTL_S = 900.0
NONCES_MAX, SESSIONS_MAX = 10_000, 10_000
"""The oldest goes for the newest: whoever lost his asks again."""
_KIND = "sess"
_PREFIX = f"mcf_{_KIND}_"


class SessionOver(NotAllowed):
    """A session token whose time is over, or whose key was revoked."""

    code = "session_over"

    def __init__(self) -> None:
        super().__init__("this session is over: ask for a challenge and sign it again (POST /v1/auth/challenges)")


class Keys(Protocol):
    """API keys."""

    def find(self, key_id: str) -> KeyRow | None: ...
    def admit(self, row: KeyRow, peer: str | None) -> Principal: ...


@dataclass(frozen=True, slots=True)
class Session:
    """A token, the one time that it is there to be seen."""

    token: str
    expires_at: float
    principal: Principal
    """Whose it is."""


class Challenges:
    """An Authenticator, for session tokens."""

    def __init__(self, *, keys: Keys, clock: Clock, names: Iterable[str]) -> None:
        """`names`: of hosts under which agents may reach this fleet; who signed another's was led to another."""
        self._keys, self._clock, self._names = keys, clock, frozenset(name.lower() for name in names)
        self._nonces: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def challenge(self, key_id: str) -> tuple[str, float]:
        """A nonce and its end, wall clock. An unknown key gets one too: nobody learns which exist."""
        nonce, ends = secrets.token_urlsafe(32), self._clock.wall_s() + NONCE_TTL_S
        self._nonces[nonce] = (key_id, ends)
        if len(self._nonces) > NONCES_MAX:
            self._nonces.popitem(last=False)
        return nonce, ends

    def session(self, key_id: str, nonce: str, signature: str, *, server: str, peer: str | None) -> Session:
        """A session for whoever signed.

        Args:
            key_id: whose private key signed.
            nonce: as it was given out.
            signature: of `signed(...)`, base64url.
            server: the `Host` of this very request.
            peer: from where.

        Raises:
            NotAllowed: a used, old or foreign nonce, a signature that is not this key's, or for another server.
            KeyExpired, KeyElsewhere: of the key.
        """
        if _host(server) not in self._names:
            raise NotAllowed(
                f"{server[:80]!r} is no name of this fleet's, so what was signed for it proves nothing here; an "
                "operator names it in MCPFLEET_PUBLIC_URL or MCPFLEET_ALLOWED_HOSTS"
            )
        made_for, ends = self._nonces.pop(nonce, ("", 0.0))  # gone whatever follows: it is good once
        row = self._keys.find(key_id)
        is_fresh = made_for == key_id and self._clock.wall_s() < ends
        if not is_fresh or row is None or row.public_key is None or not _is_signed(row, nonce, signature, server):
            raise NotAllowed(
                f"the challenge was not met: a nonce is good once, for {NONCE_TTL_S:.0f} s, for the key that asked for "
                f"it, on the server {server!r}; ask for another (POST /v1/auth/challenges)"
            )
        principal = self._keys.admit(row, peer)
        token, until = new_token(_KIND), self._clock.wall_s() + SESSION_TTL_S
        self._sessions[digest(token)] = (key_id, until)
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return Session(token, until, principal)

    async def principal(self, presented: Presented) -> Principal | None:
        """Who holds this session.

        Raises:
            SessionOver: its time is over, its key is gone, or this orchestrator never heard of it.
            KeyExpired, KeyElsewhere: of its key.
        """
        if not presented.token.startswith(_PREFIX):
            return None
        seen = digest(presented.token)
        key_id, until = self._sessions.get(seen, ("", 0.0))
        row = self._keys.find(key_id)
        if row is None or self._clock.wall_s() >= until:
            self._sessions.pop(seen, None)
            raise SessionOver
        return self._keys.admit(row, presented.peer)


def signed(server: str, key_id: str, nonce: str) -> bytes:
    """What an agent signs. `server` is HOST or HOST:PORT as it stands in the URL that it uses."""
    return f"mcpfleet-challenge-v1\n{server.lower()}\n{key_id}\n{nonce}".encode()


def _host(server: str) -> str:
    """Without the port."""
    try:
        return urlsplit(f"//{server}").hostname or ""
    except ValueError:
        return ""


def public_key_of(text: str) -> Ed25519PublicKey:
    """A public key from base64url of its 32 bytes.

    Raises:
        ValueError: it is none.
    """
    return Ed25519PublicKey.from_public_bytes(_bytes(text))


def _is_signed(row: KeyRow, nonce: str, signature: str, server: str) -> bool:
    try:
        public_key_of(row.public_key or "").verify(_bytes(signature), signed(server, row.id, nonce))
    except (InvalidSignature, ValueError):
        return False
    return True


def _bytes(text: str) -> bytes:
    """Raises ValueError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from error

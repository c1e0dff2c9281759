"""Who is logged in: a sealed cookie that holds the credential, and nothing on this side.

Owns the cookie, its end by idleness or by logging out, and the token that every form carries. Refuses to know whether
the credential is good: the API says so, with every request.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from hashlib import sha256

import orjson

from tasks.clock import Clock
from tasks.sealing import Box, NotSealedForUs, derive

COOKIE_CHARS_MAX = 4000
"""A browser need not keep more. Source: RFC 6265, section 6.1: 4,096 bytes with name and attributes."""
CREDENTIAL_CHARS_MAX = 2_700
"""Of which so many are left when sealed and in base64."""
RENEW_EVERY_S = 60.0
"""A cookie is not written anew with every page."""
ENDED_MAX = 100_000
"""Sessions that were logged out and whose cookie somebody may have kept: 20 MB, if anybody logs in and out all day.
Past it the oldest is forgotten."""
LASTS_S = 7 * 86_400.0
"""A login ends after so long, however busy: a stolen cookie must not be kept awake for ever.
Source: OWASP Session Management Cheat Sheet, absolute timeout."""
PATH = "/console"


@dataclass(frozen=True, slots=True)
class Session:
    """One login."""

    id: str
    credential: str = field(repr=False)
    seen_at: float
    """Seconds since the epoch: when its person last did something."""
    begun_at: float


class Sessions:
    """Seals and opens. Every replica has the secret, so a login outlives a change of the leader."""

    def __init__(self, secret: bytes, *, idle_s: float, clock: Clock) -> None:
        """`secret`: the fleet's, as no node has it."""
        key = hmac.digest(b"mcpfleet console 1", secret, sha256)
        self._box, self._idle_s, self._clock = Box(key, "console session", "console"), idle_s, clock
        self._notes = Box(key, "console note", "console")
        self._form_key = derive(key, "console form")
        self._name = f"mcpfleet_{derive(key, 'console cookie').hex()[:8]}"
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, credential: str) -> Session:
        """A new login."""
        now_s = self._clock.wall_s()
        return Session(secrets.token_urlsafe(16), credential, now_s, now_s)

    def find(self, cookies: dict[str, str], *, is_tls: bool) -> Session | None:
        """The login of a request; None without one, and for one that is over."""
        found = self._opened(cookies.get(self.cookie(is_tls=is_tls), ""))
        if found is None or found.id in self._ended or self.is_idle(found):
            return None
        return found

    def is_idle(self, session: Session) -> bool:
        """Nobody did anything for too long, or it began too long ago."""
        now_s = self._clock.wall_s()
        return now_s - session.seen_at > self._idle_s or now_s - session.begun_at > LASTS_S

    def seen(self, session: Session) -> Session | None:
        """The same, kept awake; None where its cookie says so well enough."""
        now_s = self._clock.wall_s()
        return replace(session, seen_at=now_s) if now_s - session.seen_at > RENEW_EVERY_S else None

    def end(self, session: Session) -> None:
        """Logged out: its cookie is good for nothing, as long as this process remembers."""
        self._ended[session.id] = None
        while len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)

    def has_ended(self, session: Session) -> bool:
        """It was logged out, or nobody did anything for too long."""
        return session.id in self._ended or self.is_idle(session)

    def cookie(self, *, is_tls: bool) -> str:
        """Its name. Two fleets on one host have two: cookies know no ports (RFC 6265, section 8.5)."""
        return f"__Secure-{self._name}" if is_tls else self._name

    def sealed(self, session: Session) -> str:
        """The cookie's value."""
        form = {"i": session.id, "c": session.credential, "s": session.seen_at, "b": session.begun_at}
        return _text(self._box.seal(orjson.dumps(form)))

    def form_token(self, session: Session) -> str:
        """What every form of this login carries: another page cannot know it."""
        return _text(hmac.digest(self._form_key, session.id.encode(), sha256))

    def is_form_token(self, session: Session, said: str) -> bool:
        """Whether it is this login's."""
        return hmac.compare_digest(self.form_token(session).encode(), said.encode())

    def note(self, text: str) -> str:
        """A sentence for the next page, as a cookie's value that nobody else can make."""
        return _text(self._notes.seal(text[:500].encode()))

    def noted(self, value: str) -> str:
        """That sentence; empty for what we did not write."""
        try:
            return self._notes.open(_bytes(value)).decode()
        except NotSealedForUs:
            return ""

    def _opened(self, value: str) -> Session | None:
        if not value:
            return None
        try:
            form = orjson.loads(self._box.open(_bytes(value)))
        except NotSealedForUs:
            return None
        return Session(form["i"], form["c"], form["s"], form.get("b", form["s"]))


def _text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""

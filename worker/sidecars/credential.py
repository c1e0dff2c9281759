"""What is known of one credential: good, spent until a time, or refused.

A quota, an expired login and an overload are states of the credential, learnt from the provider's answers:
calls wait for the reset and cost no try, and a node whose credential is refused is passed by. Refuses to
hold the secret itself longer than for a request: it is read from its file each time, so that a new one is
used at once and clears the state.
Source: HTTP Retry-After (RFC 9110, 10.2.3); `anthropic-ratelimit-*-reset` headers of the Messages API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from tasks.clock import Clock

DEFAULT_PAUSE_S = 60.0
"""For a limit whose end nobody named."""
OVERLOAD_PAUSE_S = 15.0
OVERLOADED = 529
"""Not a status of HTTP's own: the Messages API's."""
LONGEST_S = 8 * 86_400.0
"""A reset farther away is not believed: weekly limits are the longest there are."""
SAME_S = 60.0
"""Trouble that comes so soon after the end of the last is the same: nothing went well in between."""
_RESETS = (
    "anthropic-ratelimit-unified-reset",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-requests-reset",
)
_PAUSES_S = {int(HTTPStatus.TOO_MANY_REQUESTS): DEFAULT_PAUSE_S, OVERLOADED: OVERLOAD_PAUSE_S}


class Credential:
    """One key, and what its provider last said about it."""

    def __init__(self, name: str, read: Callable[[], str], clock: Clock) -> None:
        self.name, self._read, self._clock = name, read, clock
        self._refused: str | None = None
        self._refused_secret = ""
        self._spent_until_s = 0.0
        """On the monotonic clock."""
        self._spent_until = ""
        """The same for people."""
        self._spent_since_s: float | None = None
        """On the monotonic clock; None once a request went well."""

    def secret(self) -> str:
        """The key itself. Raises OSError where its file is gone."""
        return self._read()

    def heard(self, status: int, headers: Mapping[str, str]) -> None:
        """The provider answered a request that was made with it."""
        if status == HTTPStatus.UNAUTHORIZED:  # a 403 may be of one model, or one request
            self._refused, self._refused_secret = f"the provider answered {status}", self._current()
        elif status in _PAUSES_S:
            pause_s, now_s = self._pause_s(headers, _PAUSES_S[status]), self._clock.mono_s()
            if self._spent_since_s is None or now_s > self._spent_until_s + SAME_S:
                self._spent_since_s = now_s
            self._spent_until_s = now_s + pause_s
            until = datetime.fromtimestamp(self._clock.wall_s() + pause_s, UTC)
            self._spent_until = f"{until + timedelta(seconds=59):%Y-%m-%d %H:%M} UTC"
        elif status < HTTPStatus.BAD_REQUEST:
            self._refused, self._spent_until_s, self._spent_since_s = None, 0.0, None

    def wait_s(self) -> float:
        """Seconds until it may be used again; 0 now."""
        return max(0.0, self._spent_until_s - self._clock.mono_s())

    def out_s(self) -> float:
        """Seconds from when it began to be spent, or its provider overloaded, to when it may be used again; 0 now."""
        since_s = self._spent_since_s
        return self._spent_until_s - since_s if since_s is not None and self.wait_s() > 0 else 0.0

    def spent(self) -> str | None:
        """That it is, and until when: to the minute, so that what it says is stable while it is said."""
        return f"credential {self.name} is spent until {self._spent_until}" if self.wait_s() > 0 else None

    def broken(self) -> str | None:
        """Why nothing can be done with it until somebody mends it."""
        current = self._current()
        if not current:
            return f"credential {self.name} is missing or empty; put the key where its setting says"
        if self._refused is not None and current == self._refused_secret:
            return f"credential {self.name} is refused ({self._refused}); put a valid one in its place"
        return None

    def _current(self) -> str:
        try:
            return self._read()
        except OSError:
            return ""

    def _pause_s(self, headers: Mapping[str, str], default_s: float) -> float:
        named = [self._seconds(headers["retry-after"])] if "retry-after" in headers else []
        named += [self._until(headers[name]) for name in _RESETS if name in headers]
        known = [seconds for seconds in named if seconds is not None and 0 < seconds <= LONGEST_S]
        return max(known, default=default_s)

    def _seconds(self, said: str) -> float | None:
        try:
            return float(said)
        except ValueError:
            pass
        try:
            return parsedate_to_datetime(said).timestamp() - self._clock.wall_s()
        except (TypeError, ValueError):
            return None

    def _until(self, said: str) -> float | None:
        """A time as seconds since the epoch, or as RFC 3339."""
        try:
            at = float(said) if said.replace(".", "", 1).isdigit() else datetime.fromisoformat(said).timestamp()
        except ValueError:
            return None
        return at - datetime.fromtimestamp(self._clock.wall_s(), UTC).timestamp()

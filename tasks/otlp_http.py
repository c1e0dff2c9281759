"""Posts OTLP batches to a collector, which may be away, slow, or not what it should be.

Owns the connection, the tries within a batch's time, and how an answer is read. A redirect is not followed: the headers
hold the collector's key, and are for the address that was configured. Of an answer so much is read and no more.
Source: OTLP 1.x, OTLP/HTTP: response, retryable codes, partial success.
"""

from __future__ import annotations

import gzip
import random
import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import httpx

from tasks.clock import Clock, SystemClock
from tasks.errors import SettingsError

EXPORT_S = 5.0
"""One batch, its tries included."""
FIRST_WAIT_S = 0.5
IDLE_S = 60.0
"""A connection is kept so long: httpx's 5 s would mean a TLS handshake for each batch."""
RETRIED = frozenset({429, 502, 503, 504})
OK = range(200, 300)
REDIRECTS = range(300, 400)
ANSWER_MAX_BYTES = 65_536
UNREACHABLE, REFUSED, REDIRECTED, PARTLY = "unreachable", "refused", "redirected", "partly"
"""Why a batch, or some of it, was not taken."""


class Answer(NamedTuple):
    """How a batch fared."""

    lost: int
    """Of it, not taken."""
    why: str = ""
    detail: str = ""
    """For people: the status, or the kind of error. Never what the collector wrote: it may echo our headers."""


class Wait(Protocol):
    """Seconds at most; True once the process ends."""

    def __call__(self, timeout: float) -> bool: ...


class Sender:
    """To one path of a collector, from one thread."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        ca_file: Path | None = None,
        is_gzipped: bool = False,
        wait: Wait | None = None,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`wait` is a pause between two tries, and answers whether the process ends.

        Raises:
            SettingsError: the certificates cannot be read.
        """
        about = {"Content-Type": "application/x-protobuf", "Accept-Encoding": "identity", "User-Agent": "mcpfleet-otlp"}
        self._url, self._is_gzipped, self._draw = url, is_gzipped, draw
        self._headers = about | dict(headers) | ({"Content-Encoding": "gzip"} if is_gzipped else {})
        self._clock, self._wait = clock or SystemClock(), wait or threading.Event().wait
        limits = httpx.Limits(max_connections=1, keepalive_expiry=IDLE_S)
        self._client = httpx.Client(verify=_verify(ca_file), timeout=EXPORT_S, follow_redirects=False, limits=limits)

    def send(self, body: bytes, count: int) -> Answer:
        """One batch of `count`, tried again while its time lasts where the collector asks for that, or is away."""
        content = gzip.compress(body, 1) if self._is_gzipped else body
        until_s, ceiling_s = self._clock.mono_s() + EXPORT_S, FIRST_WAIT_S
        while True:
            answer, again_s = self._try(content, count, until_s)
            if again_s is None:
                return answer
            pause_s = max(again_s, ceiling_s * (0.5 + self._draw() / 2))
            if self._clock.mono_s() + pause_s >= until_s or self._wait(pause_s):
                return answer
            ceiling_s *= 2

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _try(self, content: bytes, count: int, until_s: float) -> tuple[Answer, float | None]:
        """The answer, and after which pause it is worth another try; None: never."""
        left_s = max(0.05, until_s - self._clock.mono_s())
        try:
            with self._client.stream(
                "POST", self._url, content=content, headers=self._headers, timeout=left_s
            ) as response:
                said = self._read(response, until_s)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            return Answer(count, UNREACHABLE, type(error).__name__), 0.0
        status = response.status_code
        if status in OK:
            lost = min(count, rejected_in(said))
            return Answer(lost, PARTLY if lost else "", f"HTTP {status}"), None
        if status in REDIRECTS:
            return Answer(count, REDIRECTED, f"HTTP {status}"), None
        again_s = _retry_after_s(response.headers.get("Retry-After", "")) if status in RETRIED else None
        return Answer(count, REFUSED, f"HTTP {status}"), again_s

    def _read(self, response: httpx.Response, until_s: float) -> bytes:
        said = b""
        for chunk in response.iter_raw():
            said += chunk
            if len(said) > ANSWER_MAX_BYTES or self._clock.mono_s() > until_s:
                return b""
        return said


def rejected_in(said: bytes) -> int:
    """Spans or log records that an answer says were not taken, though it is a success; 0 where it is no such answer.

    Source: opentelemetry-proto, Export*ServiceResponse: `partial_success` = 1, of it `rejected_*` = 1.
    """
    try:
        partly = next((value for key, value in _fields(said) if key == 1 and isinstance(value, bytes)), b"")
        found = next((value for key, value in _fields(partly) if key == 1 and isinstance(value, int)), 0)
    except (IndexError, ValueError):
        return 0
    return found if found < 1 << 63 else 0


def _fields(said: bytes) -> list[tuple[int, int | bytes]]:
    """Of a protobuf message with varints and texts only."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(said):
        key, at = _varint_at(said, at)
        value, at = _varint_at(said, at)
        if key & 7 == 0:
            found.append((key >> 3, value))
        elif key & 7 == 2:  # noqa: PLR2004 - length first
            if at + value > len(said):
                raise ValueError("it ends early")
            found.append((key >> 3, said[at : at + value]))
            at += value
        else:
            raise ValueError("not a type that is expected")
    return found


def _varint_at(said: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70:  # noqa: PLR2004 - ten bytes at most
        number |= (said[at] & 0x7F) << shift
        at, shift, more = at + 1, shift + 7, said[at] & 0x80
        if not more:
            return number, at
    raise ValueError("no varint")


def _retry_after_s(said: str) -> float:
    """Seconds; a date is not worth reading within five seconds. Source: RFC 9110, 10.2.3."""
    return float(said) if said.isascii() and said.isdigit() else 0.0


def _verify(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"the certificates for the OTLP collector in {ca_file} cannot be read ({error}); name a PEM file"
        ) from error

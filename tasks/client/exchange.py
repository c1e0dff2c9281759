"""What the client does, without doing it: steps that a transport carries out.

A `Flow` yields requests and pauses, gets answers, and returns a value. The sync and the async
client run the same flows (tasks/client/transport.py): neither is a copy of the other.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from tasks.client.answers import error_of
from tasks.client.trace import current_traceparent
from tasks.clock import Clock, SystemClock
from tasks.errors import OrchestratorDown
from tasks.ids import new_id
from tasks.retry import RetryPolicy, delay_s

CONNECT_S = 5.0
ANSWER_S = 30.0
"""Seconds an answer may take beyond what the request itself asks the server to wait."""
PATIENCE = RetryPolicy(attempts=6, first_wait_s=0.1, factor=2.0, cap_s=2.0)
"""Of requests that are safe to repeat: about 6 s in the worst case, a restart of the orchestrator."""
BUSY = frozenset({429, 503})
BROKEN_GATEWAY = frozenset({502, 504})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Every request of this client may be repeated: reads, or with an idempotency key."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    """Seconds the server was asked to hold it."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next step."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Broken:
    """Nothing came back."""

    detail: str


Step = Request | Pause
Flow = Generator[Step, Answer | Broken | None, T]


@dataclass(frozen=True, slots=True)
class Core:
    """What flows need of the world."""

    url: str
    clock: Clock = field(default_factory=SystemClock)
    draw: Callable[[], float] = random.random
    new_key: Callable[[], str] = new_id
    patience: RetryPolicy = PATIENCE
    traceparent: Callable[[], str | None] = current_traceparent
    """Where in a trace the caller stands, asked for each call."""


def send(core: Core, request: Request) -> Flow[Answer]:
    """An answer below 400, asked for again while nobody answers or the fleet is busy.

    Raises:
        OrchestratorDown: nothing answers.
        FleetError: what the problem+json says.
    """
    failures = 0
    while True:
        answer = yield request
        if isinstance(answer, Answer) and answer.status < 400:  # noqa: PLR2004 - RFC 9110, 15.5
            return answer
        failures += 1
        wait_s = _wait_s(core, answer, failures)
        if wait_s is None:
            raise _error(core, answer)
        yield Pause(wait_s)


def _wait_s(core: Core, answer: Answer | Broken | None, failures: int) -> float | None:
    """Seconds until the next try; None to give up."""
    if failures >= core.patience.attempts:
        return None
    own_s = delay_s(failures, core.patience, core.draw())
    if not isinstance(answer, Answer) or answer.status in BROKEN_GATEWAY:
        return own_s
    if answer.status not in BUSY:
        return None
    asked_s = _seconds(answer.headers.get("retry-after", ""))
    return max(own_s, min(asked_s, core.patience.cap_s))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _error(core: Core, answer: Answer | Broken | None) -> Exception:
    if not isinstance(answer, Answer):
        return OrchestratorDown(core.url, answer.detail if answer else "no answer")
    return error_of(answer.status, answer.body, core.url)

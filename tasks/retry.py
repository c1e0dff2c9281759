"""When to try again, and after how long. Pure.

Owns the one retry policy and its arithmetic; refuses to sleep, to draw random numbers and to
know what a node is.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.outcome import ErrorInfo, Failure

BACKOFF_EXPONENT_MAX = 64
"""2**64 waits are over every cap; keeps the power finite for any attempt number."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how patiently.

    Attributes:
        attempts: tries in all, the first one counted; 1 never retries.
        first_wait_s: ceiling of the first wait, seconds.
        factor: growth of the ceiling per try.
        cap_s: ceiling of every wait, seconds.
        retry_tool_errors: repeat also when the tool answered with `isError`.
    """

    attempts: int = 3
    first_wait_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 30.0
    retry_tool_errors: bool = False

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if self.first_wait_s < 0 or self.cap_s < 0 or self.factor < 1:
            raise ValueError("first_wait_s and cap_s must not be negative, factor not below 1")


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after `wait_s` seconds; `counts` says whether a try was used up."""

    wait_s: float
    counts: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again; `why` is a constant word for the dead letter."""

    why: str


def delay_s(tries: int, policy: RetryPolicy, draw: float) -> float:
    """Seconds to wait before the next try.

    Exponential, capped, then spread over the whole interval: spreading before capping would make
    every late retry wait exactly the cap, together.

    Args:
        tries: tries that failed so far, counted from 1.
        policy: the ceilings.
        draw: uniform in [0, 1), drawn by the caller.

    Raises:
        ValueError: tries is below 1.

    Source: full jitter, docs/adr/0004-retries.md.
    """
    if tries < 1:
        raise ValueError(f"tries counts from 1, not {tries}")
    exponent = min(tries - 1, BACKOFF_EXPONENT_MAX)
    ceiling = min(policy.cap_s, policy.first_wait_s * policy.factor**exponent)
    return ceiling * draw


def next_attempt(error: ErrorInfo, *, tries: int, is_safe: bool, policy: RetryPolicy, draw: float) -> Again | GiveUp:
    """Decide what follows an attempt that ended in `error`.

    Args:
        error: what the node, or the orchestrator for a lost node, said.
        tries: tries used up, this one counted unless it was told to wait until a time.
        is_safe: the tool may be repeated (idempotent or read-only, or declared so).
        policy: the call's policy.
        draw: uniform in [0, 1).
    """
    if error.failure is Failure.WAIT_UNTIL:
        return Again(wait_s=error.retry_after_s or policy.first_wait_s, counts=False)
    refusal = _refusal(error, is_safe=is_safe, policy=policy)
    if refusal is not None:
        return GiveUp(refusal)
    if tries >= policy.attempts:
        return GiveUp("retries_exhausted")
    wait_s = max(delay_s(max(tries, 1), policy, draw), error.retry_after_s or 0.0)
    return Again(wait_s=wait_s, counts=True)


def _refusal(error: ErrorInfo, *, is_safe: bool, policy: RetryPolicy) -> str | None:
    match error.failure:
        case Failure.PERMANENT:
            return "permanent"
        case Failure.POISON:
            return "poison"
        case Failure.TOOL_ERROR if not policy.retry_tool_errors:
            return "tool_error"
        case Failure.MAYBE_STARTED if not is_safe:
            return "unsafe_to_repeat"
        case _:
            return None

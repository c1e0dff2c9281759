"""How an Invocation ended, and what a node says about one attempt.

Refuses to decide whether to try again: `tasks/retry.py` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tasks.spend import Spent

SPENT_MIDWAY = "credential_spent_midway"
"""Code of an agent's run that waits in its middle: it means nothing without what was saved of its session."""


class Failure(StrEnum):
    """Classes of failure, by what they allow. Source: docs/adr/0004-retries.md."""

    NOT_STARTED = "not_started"
    """The tool never started (connection refused, 429, 503, no server): repeating is always safe."""
    MAYBE_STARTED = "maybe_started"
    """Timeout, broken connection, node lost: repeatable only where the tool is declared safe."""
    WAIT_UNTIL = "wait_until"
    """A named time must pass first (quota window); costs no try."""
    TOOL_ERROR = "tool_error"
    """The tool ran and said `isError`: an answer, repeated only where declared retryable."""
    PERMANENT = "permanent"
    """Bad arguments, unknown tool, result over the limit: repeating cannot help."""
    POISON = "poison"
    """A safe call that killed its worker twice."""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What went wrong, for people and for programs."""

    code: str
    """A constant word, e.g. `tool_timeout`; see docs/errors.md."""
    message: str
    """What was wrong, with which value, and what to do."""
    failure: Failure
    retry_after_s: float | None = None
    """Seconds the other side asked us to wait (Retry-After)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an Invocation.

    `result_json` is an MCP `CallToolResult` as JSON text, also where the tool said `isError`;
    it is carried, never rewritten. `result_blob` names it where it is over the inline limit.
    """

    ending: str
    """succeeded, failed, cancelled, expired or lost."""
    result_json: str | None = None
    result_blob: str | None = None
    error: ErrorInfo | None = None
    spent: Spent = ()
    """Of the attempt that ended so, on models; however it ended."""

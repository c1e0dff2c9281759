"""The HTTP API's JSON about questions of runs to people. As `tasks/wire.py`: pydantic, because bytes enter here."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.approval import REASON_MAX_CHARS, ApprovalState, Verdict


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class AnswerRequest(_In):
    """POST /v1/approvals/{id}."""

    answer: Verdict
    arguments_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the arguments that the person saw, as the approval shows it. Another one is refused."""
    reason: str = Field(default="", max_length=REASON_MAX_CHARS)
    """The agent is told."""


class ApprovalView(_Out):
    """A tool that a run wants to use, and what was said to it."""

    id: str
    state: ApprovalState
    invocation: str
    fence: int
    node: str
    fleet_tool: str
    """Whose run asks, e.g. `claude_code.run`."""
    project: str | None
    tool: str
    """What the agent wants to use, in its own words."""
    arguments: dict[str, Any]
    arguments_sha256: str
    """SHA-256 of their canonical JSON: keys sorted, no spaces, all but ASCII escaped."""
    asked_at: float
    expires_at: float
    answer: Verdict | None = None
    answered_by: str | None = None
    answered_at: float | None = None
    reason: str | None = None
    taken_at: float | None = None
    """When its node said what it made of it."""

"""What goes into the ledger of a run's question to a person, and what comes out. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.approval import ApprovalState, Taken, Verdict


@dataclass(frozen=True, slots=True)
class NewApproval:
    """A question as its node told it."""

    id: str
    invocation_id: str
    fence: int
    node: str
    tool: str
    """In the words of the agent."""
    asked_at: float
    expires_at: float
    frees_slot: bool
    arguments_sha256: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """A question, what was said to it, and the call that asks."""

    question: NewApproval
    tenant: str
    fleet_tool: str
    project: str | None
    is_current: bool
    """The attempt that asks is open."""
    answer: Verdict | None = None
    answered_by: str | None = None
    answered_at: float | None = None
    reason: str | None = None
    taken: Taken | None = None
    """What its node made of it; None until it said so."""
    taken_at: float | None = None

    def state(self, now_s: float) -> ApprovalState:
        """Where it stands, by the wall clock."""
        if self.taken is Taken.EXPIRED:
            return ApprovalState.EXPIRED
        if self.answer is not None:
            return ApprovalState.ALLOWED if self.answer is Verdict.ALLOW else ApprovalState.DENIED
        if not self.is_current:
            return ApprovalState.OVER
        return ApprovalState.EXPIRED if now_s >= self.question.expires_at else ApprovalState.WAITING


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """What a person says, and who it is."""

    verdict: Verdict
    arguments_sha256: str
    by: str
    at: float
    reason: str = ""

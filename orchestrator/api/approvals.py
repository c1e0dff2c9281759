"""/v1/approvals: what runs ask of people, and what people say."""

from __future__ import annotations

import orjson
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Approvals
from orchestrator.api.reply import Reply, listing
from orchestrator.ledger.approval_values import ApprovalRow
from tasks.approval import ApprovalState
from tasks.approval_wire import AnswerRequest, ApprovalView
from tasks.clock import Clock
from tasks.scopes import Scope
from tasks.wire import Page


class ApprovalQuery(BaseModel):
    """Which approvals, newest first."""

    model_config = ConfigDict(extra="forbid")
    state: list[ApprovalState] = Field(default_factory=list, description="repeat for several")
    cursor: str | None = Field(None, min_length=1, max_length=200, description="`next` of the page before")
    limit: int = Field(50, ge=1, le=200)


class ApprovalDoor:
    """The operations on approvals."""

    def __init__(self, approvals: Approvals, clock: Clock) -> None:
        self._approvals, self._clock = approvals, clock

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        one = Answer("as it stands", ApprovalView)
        return (
            Operation("GET", "/v1/approvals", "approvals", Scope.APPROVALS_READ,
                      "List what runs ask of people, newest first", self.list,
                      {200: Answer("one page", Page[ApprovalView])}, query=ApprovalQuery, tag="approvals"),
            Operation("GET", "/v1/approvals/{id}", "approval", Scope.APPROVALS_READ,
                      "Show one, with its exact arguments", self.show,
                      {200: one}, errors=(404,), tag="approvals"),
            Operation("POST", "/v1/approvals/{id}", "answer_approval", Scope.APPROVALS_WRITE,
                      "Allow or deny it, for just these arguments",
                      self.answer, {200: one}, body=AnswerRequest, errors=(404, 409, 410), tag="approvals"),
        )  # fmt: skip

    async def list(self, ask: Ask) -> Reply:
        """GET /v1/approvals."""
        query = ask.query(ApprovalQuery)
        wanted = frozenset(query.state)
        found, cursor = await self._approvals.listing(wanted, ask.principal, query.cursor, query.limit)
        return listing([self._view(row) for row in found], cursor)

    async def show(self, ask: Ask) -> Reply:
        """GET /v1/approvals/{id}."""
        return Reply(self._view(await self._approvals.get(ask.path["id"], ask.principal)))

    async def answer(self, ask: Ask) -> Reply:
        """POST /v1/approvals/{id}."""
        said = ask.body(AnswerRequest)
        row = await self._approvals.answer(
            ask.path["id"], said.answer, said.arguments_sha256, said.reason, ask.principal
        )
        return Reply(self._view(row))

    def _view(self, row: ApprovalRow) -> bytes:
        """`ApprovalView` as JSON. The arguments are embedded as they are digested: nothing is lost on the way."""
        asked = row.question
        return orjson.dumps(
            {
                "id": asked.id,
                "state": row.state(self._clock.wall_s()),
                "invocation": asked.invocation_id,
                "fence": asked.fence,
                "node": asked.node,
                "fleet_tool": row.fleet_tool,
                "project": row.project,
                "tool": asked.tool,
                "arguments": orjson.Fragment(asked.arguments_json),
                "arguments_sha256": asked.arguments_sha256,
                "asked_at": asked.asked_at,
                "expires_at": asked.expires_at,
                "answer": row.answer,
                "answered_by": row.answered_by,
                "answered_at": row.answered_at,
                "reason": row.reason,
                "taken_at": row.taken_at,
            }
        )

"""What a run asks of a person, put to the client that called it, where that client can ask its user.

A client of the 2026 era gets an `InputRequiredResult` and calls again with the answers: the same Invocation goes on.
An older one is asked over its session while its call goes on. Answers bind to what was shown, by its digest; a
question that the user leaves open stays open for others. Refuses to decide anything itself.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import INVALID_PARAMS, ElicitRequest, ElicitResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.ledger.approval_values import ApprovalRow
from tasks.approval import REASON_MAX_CHARS, Verdict, shown, shown_line
from tasks.errors import FleetError
from tasks.invocation import Principal

STATE_PREFIX = "mcpfleet-approval:"
"""Begins a `requestState` of ours; those of tools pass as they are."""
STATE_MAX_CHARS = 20_000
DECLINED = "the user of the calling client declined"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "allow": {"type": "boolean", "title": "Allow", "description": "Run it, with exactly these arguments, once."},
        "reason": {"type": "string", "title": "Reason", "description": "The agent is told.", "maxLength": 1000},
    },
    "required": ["allow"],
}
Ctx = ServerRequestContext[Any, Any]
log = structlog.get_logger()


class Approvals(Protocol):
    """Questions of runs to people."""

    def waiting(self, invocation_id: str) -> Sequence[ApprovalRow]:
        """What this Invocation waits for now."""
        ...

    async def get(self, approval_id: str, principal: Principal) -> ApprovalRow:
        """Raises NotFound, also for another tenant's."""
        ...

    async def answer(
        self, approval_id: str, verdict: Verdict, arguments_sha256: str, reason: str, principal: Principal
    ) -> ApprovalRow:
        """Raises NotFound, OtherArguments, AlreadyAnswered, ApprovalOver."""
        ...


class NoApprovals:
    """Of a fleet where nobody asks."""

    def waiting(self, invocation_id: str) -> Sequence[ApprovalRow]:  # noqa: ARG002 - the port's
        """Nothing."""
        return ()

    async def get(self, approval_id: str, principal: Principal) -> ApprovalRow:
        """Never called: nothing waits."""
        raise NotImplementedError

    async def answer(
        self, approval_id: str, verdict: Verdict, arguments_sha256: str, reason: str, principal: Principal
    ) -> ApprovalRow:
        """Never called: nothing waits."""
        raise NotImplementedError


class State(BaseModel):
    """What a client of the 2026 era carries from question to answer. Nothing in it is believed unchecked."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    invocation: str
    asked: dict[str, str] = {}
    """Approval's id → digest of what was shown."""
    left: tuple[str, ...] = ()
    """Approvals that the user left open: not asked again here."""

    def sealed(self) -> str:
        """As `requestState`."""
        return STATE_PREFIX + base64.urlsafe_b64encode(self.model_dump_json().encode()).decode()


def state_of(params: Mapping[str, Any]) -> State | None:
    """Ours, where the request goes on with a question of ours.

    Raises:
        MCPError: it looks like ours and is not.
    """
    text = params.get("requestState")
    if not isinstance(text, str) or not text.startswith(STATE_PREFIX):
        return None
    try:
        return State.model_validate_json(base64.urlsafe_b64decode(text[:STATE_MAX_CHARS].removeprefix(STATE_PREFIX)))
    except (ValueError, binascii.Error, ValidationError) as error:
        raise MCPError(INVALID_PARAMS, "requestState is not one that this server gave") from error


def can_be_asked(ctx: Ctx) -> bool:
    """Its user can be, by a form."""
    capabilities = ctx.session.client_capabilities
    said = None if capabilities is None else capabilities.elicitation
    if said is None or (said.url is not None and said.form is None):
        return False
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS or ctx.session.can_send_request


def elicitation(row: ApprovalRow) -> dict[str, Any]:
    """The question as MCP puts it. Source: MCP 2026-07-28, elicitation, form mode."""
    asked = row.question
    given = json.dumps(json.loads(asked.arguments_json), ensure_ascii=False, indent=2, sort_keys=True)
    message = (
        f"{row.fleet_tool} on {asked.node} asks to use {shown_line(asked.tool)} with exactly these arguments:\n"
        f"{shown(given)}\n(approval {asked.id}, sha256 {asked.arguments_sha256})"
    )
    return {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": message, "requestedSchema": SCHEMA},
    }


def verdict_of(said: Mapping[str, Any]) -> tuple[Verdict, str] | None:
    """What an ElicitResult says; None where the user left it open, or said nothing that is meant so."""
    if said.get("action") == "decline":
        return Verdict.DENY, DECLINED
    content = said.get("content")
    if said.get("action") != "accept" or not isinstance(content, dict) or not isinstance(content.get("allow"), bool):
        return None
    reason = content.get("reason")
    shortened = reason[:REASON_MAX_CHARS] if isinstance(reason, str) else ""
    return (Verdict.ALLOW if content["allow"] else Verdict.DENY), shortened


class Answers:
    """Takes a client's answers to the fleet."""

    def __init__(self, approvals: Approvals) -> None:
        self.approvals = approvals

    async def take(self, state: State, said: Mapping[str, Any], principal: Principal) -> State:
        """Answers of a retry; what goes on being asked is not in the state that this answers with."""
        left = set(state.left)
        for approval_id, digest in state.asked.items():
            answer = said.get(approval_id)
            if not isinstance(answer, dict) or not await self._said(approval_id, digest, answer, principal):
                left.add(approval_id)
        return State(invocation=state.invocation, left=tuple(sorted(left)))

    async def update(self, invocation_id: str, said: Mapping[str, Any], principal: Principal) -> None:
        """Answers to a task, by approval; others are ignored."""
        for row in self.approvals.waiting(invocation_id):
            answer = said.get(row.question.id)
            if isinstance(answer, dict):
                await self._said(row.question.id, row.question.arguments_sha256, answer, principal)

    def requests(self, invocation_id: str, left: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, str]]:
        """`inputRequests` by approval, and the digest of each."""
        rows = [row for row in self.approvals.waiting(invocation_id) if row.question.id not in left]
        asked = {row.question.id: row.question.arguments_sha256 for row in rows}
        return {row.question.id: elicitation(row) for row in rows}, asked

    async def over_session(self, ctx: Ctx, approval_id: str, principal: Principal) -> None:
        """Ask a client of the handshake era. Cancelled when somebody else was quicker."""
        try:
            row = await self.approvals.get(approval_id, principal)
            answer = await ctx.session.send_request(
                ElicitRequest.model_validate(elicitation(row), by_name=False),
                ElicitResult,
                metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
            )
            said = answer.model_dump(by_alias=True, mode="json", exclude_none=True)
            await self._said(approval_id, row.question.arguments_sha256, said, principal)
        except (MCPError, FleetError) as error:
            log.info("not_asked_over_session", approval=approval_id, error=str(error))
        except Exception:  # top of a task: the question stays open for others, the call goes on
            log.exception("question_lost", approval=approval_id)

    async def _said(self, approval_id: str, digest: str, said: Mapping[str, Any], principal: Principal) -> bool:
        """Whether it is answered now, by this or before."""
        verdict = verdict_of(said)
        if verdict is None:
            return False
        try:
            await self.approvals.answer(approval_id, verdict[0], digest, verdict[1], principal)
        except FleetError as error:
            log.info("answer_refused", approval=approval_id, code=error.code)
        return True


class Questions:
    """The questions of one call while its client waits for it."""

    def __init__(self, answers: Answers, ctx: Ctx, principal: Principal, left: Sequence[str] = ()) -> None:
        self._answers, self._ctx, self._principal = answers, ctx, principal
        self._left, self._asking = frozenset(left), dict[str, asyncio.Task[None]]()
        self._is_modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        self.is_due = asyncio.Event()
        """The call is to be answered with its questions."""

    def asked(self, approval_id: str) -> None:
        """The run waits for an answer."""
        if approval_id in self._left or approval_id in self._asking:
            return
        if self._is_modern:
            self.is_due.set()
            return
        asking = self._answers.over_session(self._ctx, approval_id, self._principal)
        self._asking[approval_id] = asyncio.create_task(asking)

    def answered(self, approval_id: str) -> None:
        """By whomever."""
        asking = self._asking.get(approval_id)
        if asking is not None:
            asking.cancel()

    async def close(self) -> None:
        """The call is over, for this client."""
        for asking in self._asking.values():
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

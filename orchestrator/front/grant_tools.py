"""The tools of AuthGuardian as MCP shows them: their forms, and what each answers.

Refuses to decide anything: the Guardian does. What a model can mend by asking differently is a result with
`isError`; a no is an answer like any other.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from orchestrator.front.exact_json import write
from orchestrator.front.faults import tool_error
from orchestrator.ledger.grant_values import Answer, Asked, GrantRow, GrantState, Validity, terms_digest
from orchestrator.wanted import wanted_of_field
from tasks.errors import FleetError
from tasks.grant import LIFETIME_MAX_S, TOKEN_CHARS_MAX
from tasks.invocation import Principal
from tasks.scopes import Scope, allows

WAIT_S, WAIT_MAX_S = 20.0, 55.0
"""For a person, in one call; below what proxies cut off. Who asks again waits again."""


class Guardian(Protocol):
    """AuthGuardian as its door uses it. Satisfied by `orchestrator.grants.guardian.Guardian`."""

    async def request(self, asked: Asked, by: Principal, trust: int) -> Answer: ...
    async def again(self, grant_id: str, agent: str, by: Principal) -> Answer: ...
    async def settled(self, grant_id: str, within_s: float) -> None: ...
    async def answer(
        self, grant_id: str, *, is_allowed: bool, terms_sha256: str, reason: str, by: Principal
    ) -> GrantRow: ...
    def validate(self, token: str, agent: str, resource_type: str, by: Principal) -> Validity: ...
    async def revoke(self, by: Principal, *, token: str = "", grant_id: str = "") -> GrantRow: ...
    def listing(self, by: Principal) -> list[GrantRow]: ...


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RequestForm(_Form):
    """Ask for a grant: for what, how much of it, and why."""

    agent_id: str = Field(description="your own id, as the fleet knows you", min_length=1, max_length=128)
    resource_type: str = Field(description="what you need, as grants://resources lists it", max_length=64)
    justification: str = Field(
        description="what you need it for; kept, and shown to people. It never makes a yes", max_length=4000
    )
    scope: tuple[str, ...] = Field(default=(), max_length=20, description="how much of it; words of the resource type")
    lifetime_s: float | None = Field(
        default=None, gt=0, le=LIFETIME_MAX_S, allow_inf_nan=False, description="seconds; the type's own when absent"
    )
    wait_s: float = Field(
        default=WAIT_S, ge=0, le=WAIT_MAX_S, allow_inf_nan=False, description="seconds to wait for a person's answer"
    )
    request_id: str | None = Field(default=None, max_length=64, description="ask again about a pending request")

    @field_validator("scope", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(value.split())
        return tuple(value) if isinstance(value, list) else value


class ValidateForm(_Form):
    """Whether a token allows this agent this resource, now."""

    token: str = Field(max_length=TOKEN_CHARS_MAX)
    agent_id: str = Field(max_length=128)
    resource_type: str = Field(max_length=64)


class RevokeForm(_Form):
    """Void a grant, or withdraw a request: by its token, or by its id."""

    token: str = Field(default="", max_length=TOKEN_CHARS_MAX)
    id: str = Field(default="", max_length=64)


class AnswerForm(_Form):
    """Answer a pending request, as a person who may."""

    id: str = Field(max_length=64)
    verdict: Literal["allow", "deny"]
    terms_sha256: str = Field(max_length=64, description="of the terms you saw, from grants://pending")
    reason: str = Field(default="", max_length=1000)


Body = Callable[[Mapping[str, Any], Principal, int], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Tool:
    title: str
    form: type[_Form]
    body: Body
    needs: frozenset[Scope]
    """Any of them."""
    hints: Mapping[str, bool]


_USE = frozenset({Scope.GRANTS_REQUEST})
Refused = Callable[[str, Principal, FleetError], Awaitable[None]]
"""Told of a tool, who called it, and why it did not come off."""


async def _untold(_tool: str, _by: Principal, _error: FleetError) -> None:
    pass


class GrantTools:
    """The four tools."""

    def __init__(self, guardian: Guardian) -> None:
        self._guardian = guardian
        self.on_refused: Refused = _untold
        reads, writes = {"readOnlyHint": True, "openWorldHint": False}, {"openWorldHint": False}
        may_read = _USE | {Scope.GRANTS_READ}
        self._tools = {
            "request_permission": _Tool("Ask for a permission", RequestForm, self._request, _USE, writes),
            "validate_token": _Tool("Check a token", ValidateForm, self._validate, may_read, reads),
            "revoke_token": _Tool(
                "Void a permission",
                RevokeForm,
                self._revoke,
                _USE | {Scope.GRANTS_WRITE},
                {**writes, "idempotentHint": True},
            ),
            "answer_request": _Tool(
                "Answer a request", AnswerForm, self._answer, frozenset({Scope.GRANTS_WRITE}), writes
            ),
        }

    def definitions(self, by: Principal) -> list[dict[str, Any]]:
        """As tools/list shows them to this principal."""
        return [
            {
                "name": name,
                "title": tool.title,
                "description": tool.form.__doc__ or "",
                "inputSchema": _schema(tool.form),
                "annotations": dict(tool.hints),
            }
            for name, tool in self._tools.items()
            if any(allows(by, scope) for scope in tool.needs)
        ]

    def has(self, name: str) -> bool:
        """Whether there is such a tool."""
        return name in self._tools

    async def call(self, name: str, arguments: Mapping[str, Any], by: Principal, trust: int) -> dict[str, Any]:
        """A CallToolResult; whatever the caller can mend is one with `isError`."""
        try:
            answer = await self._tools[name].body(arguments, by, trust)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return tool_error(
                f"{name}: argument {'.'.join(str(part) for part in first['loc'])}: {wanted_of_field(first)}"
            )
        except FleetError as error:
            await self.on_refused(name, by, error)
            return tool_error(error.message, code=error.code)
        text = write(answer).decode()
        return {"resultType": "complete", "content": [{"type": "text", "text": text}], "structuredContent": answer}

    async def _request(self, arguments: Mapping[str, Any], by: Principal, trust: int) -> dict[str, Any]:
        said = RequestForm.model_validate(arguments)
        if said.request_id is not None:
            found = await self._guardian.again(said.request_id, said.agent_id, by)
        else:
            asked = Asked(said.agent_id, said.resource_type, said.justification, said.scope, said.lifetime_s)
            found = await self._guardian.request(asked, by, trust)
        if found.row.state == GrantState.PENDING and said.wait_s > 0:
            await self._guardian.settled(found.row.id, said.wait_s)
            found = await self._guardian.again(found.row.id, said.agent_id, by)
        return requested(found)

    async def _validate(self, arguments: Mapping[str, Any], by: Principal, _trust: int) -> dict[str, Any]:
        said = ValidateForm.model_validate(arguments)
        found = self._guardian.validate(said.token, said.agent_id, said.resource_type, by)
        if found.grant is None:
            return {"valid": False, "why": found.why}
        return {"valid": True, "grant": found.grant.shown()}

    async def _revoke(self, arguments: Mapping[str, Any], by: Principal, _trust: int) -> dict[str, Any]:
        said = RevokeForm.model_validate(arguments)
        return shown(await self._guardian.revoke(by, token=said.token, grant_id=said.id))

    async def _answer(self, arguments: Mapping[str, Any], by: Principal, _trust: int) -> dict[str, Any]:
        said = AnswerForm.model_validate(arguments)
        row = await self._guardian.answer(
            said.id, is_allowed=said.verdict == "allow", terms_sha256=said.terms_sha256, reason=said.reason, by=by
        )
        return shown(row)


def requested(answer: Answer) -> dict[str, Any]:
    """To whoever asked: where it stands, and the token where it is granted."""
    view = shown(answer.row)
    if answer.token is not None:
        view["token"] = answer.token
    if answer.row.state == GrantState.PENDING:
        view["next"] = "a person is asked; call request_permission again with this id as request_id"
    return view


def shown(row: GrantRow) -> dict[str, Any]:
    """A request for people and agents; never its token."""
    view: dict[str, Any] = {
        "id": row.id,
        "status": str(row.state),
        "agent_id": row.agent,
        "requested_by": row.requested_by,
        "tenant": row.tenant,
        "resource_type": row.resource_type,
        "scope": row.scope.split(),
        "lifetime_s": row.lifetime_s,
        "restrictions": json.loads(row.restrictions_json),
        "justification": row.justification,
        "trust": row.trust,
        "asked_at": row.asked_at,
        "parent": row.parent,
        "decided_at": row.decided_at,
        "decided_by": row.decided_by,
        "reason": row.reason,
        "rules": row.rules.split(),
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "revoked_by": row.revoked_by,
    }
    if row.state == GrantState.PENDING:
        view |= {"answer_by": row.answer_by, "terms_sha256": terms_digest(row)}
    return view


def _schema(form: type[BaseModel]) -> dict[str, Any]:
    schema = form.model_json_schema()
    schema.pop("description", None)
    if "scope" in schema["properties"]:  # one word is written as often as a list of them
        listed = schema["properties"]["scope"]
        words = {"type": "string"}
        schema["properties"]["scope"] = {
            "anyOf": [words, {"type": "array", "items": words}],
            "description": listed["description"],
        }
    return schema

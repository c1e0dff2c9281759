"""AuthGuardian for one run: the tools that its agent sees, and the tokens that it never does.

A run asks through its node, as whoever called it. What is granted is kept here, outside the sandbox, and goes with
the run's calls of lent servers: an agent cannot lose, print or pass on what it does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tasks.errors import FleetError
from tasks.node import Ref, RunGrantReply
from tasks.tracing import Trace
from worker.grants import AUTHGUARDIAN, AskGuard, Caller, GuardAsk
from worker.upstreams.upstream import Ask

ASK = "request_permission"
Context = ServerRequestContext[Any, Any]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    resource_type: str = Field(max_length=64, description="what you need, e.g. SAP_API")
    justification: str = Field(max_length=4000, description="what you need it for; kept for people, never a reason")
    scope: list[str] = Field(default_factory=list, max_length=20, description="how much of it; words of that type")

    @field_validator("scope", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return value.split() if isinstance(value, str) else value


@dataclass(slots=True)
class Borrower:
    """One run, to what it borrows."""

    project: str | None
    run: Ref
    caller: Caller | None = None
    trace: Trace | None = None
    """Where the run stands in its trace."""
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    """By resource type: the newest."""
    pending: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)
    """Requests that wait for a person, by type and scope."""


def borrower_of(ask: Ask) -> Borrower:
    """The run that a call begins."""
    fence = 1 if ask.keeping is None else ask.keeping.fence
    return Borrower(ask.project, Ref(invocation=ask.invocation, fence=fence), ask.caller, ask.trace)


def guard_line(ask: AskGuard, borrower: Borrower, version: str) -> Server[Any]:
    """The server that the run's agent sees."""

    async def listed(_ctx: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        schema = _Form.model_json_schema()
        about = (
            "Ask for what a tool needs. Granted: call the tool, the grant goes with it. Pending: a person is asked; "
            "ask the same again later. Denied: do without, and say so."
        )
        return types.ListToolsResult(tools=[types.Tool(name=ASK, description=about, input_schema=schema)])

    async def called(_ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        if params.name != ASK:
            raise MCPError(INVALID_PARAMS, f"no tool {params.name[:64]!r} here")
        try:
            reply = await _asked(ask, borrower, params.arguments or {})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return _said(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", is_error=True)
        except FleetError as error:
            return _said(error.message, is_error=True)
        told = f"{reply.status}: {' '.join(reply.scope)}" + (f" ({reply.reason})" if reply.reason else "")
        return _said(told)

    return Server(AUTHGUARDIAN, version=version, on_list_tools=listed, on_call_tool=called)


async def _asked(ask: AskGuard, borrower: Borrower, arguments: Mapping[str, Any]) -> RunGrantReply:
    said = _Form.model_validate(arguments)
    key = said.resource_type, tuple(sorted(said.scope))
    known = borrower.pending.pop(key, None)
    reply = await ask(GuardAsk(borrower.run, said.resource_type, said.justification, key[1], known))
    if reply.status == "pending":
        borrower.pending[key] = reply.id
    if reply.token is not None:
        borrower.tokens[said.resource_type] = reply.token
    return reply


def _said(text: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=is_error)

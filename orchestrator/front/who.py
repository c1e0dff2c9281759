"""Who calls, where a request came over HTTP. The guard put the principal into the ASGI scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST
from starlette.requests import Request

from tasks.invocation import Principal

SCOPE_KEY = "mcpfleet.principal"
AGAIN_KEY = "mcpfleet.verify"
"""In a scope: whether its credential is still good; to be asked when a body was waited for."""
METHOD_KEY = "mcpfleet.method"
"""In a scope: the method of a request, as its body says; whoever counts requests looks for it."""
TRACE_KEY = "mcpfleet.trace"
"""In a scope: the trace id of the call that a request became; for the same."""
SESSION_HEADER = "mcp-session-id"


def principal_of(ctx: ServerRequestContext[Any, Any]) -> Principal:
    """The authenticated principal of this request.

    Raises:
        MCPError: the request did not pass the guard. It must never be served then.
    """
    request = ctx.request
    principal = request.scope.get(SCOPE_KEY) if isinstance(request, Request) else None
    if not isinstance(principal, Principal):
        raise MCPError(INVALID_REQUEST, "not authenticated")
    return principal


def request_key(session: str | None, request_id: object) -> tuple[str, str | int] | None:
    """What names a request of the handshake era, where its client named a session."""
    return (session, request_id) if session is not None and isinstance(request_id, str | int) else None


def headers_of(ctx: ServerRequestContext[Any, Any]) -> Mapping[str, str]:
    """The request's HTTP headers; empty where there are none."""
    return ctx.request.headers if isinstance(ctx.request, Request) else {}

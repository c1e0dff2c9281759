"""Bearer tokens at the HTTP doors. Nothing behind it runs without a principal.

Refuses to know how tokens are made or kept: that is the Verifier's.
"""

from __future__ import annotations

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.front.ports import Verifier
from orchestrator.front.who import SCOPE_KEY

_BEARER = b"bearer "
_MCP_PREFIX = b"mcp-"


class Guard:
    """Authenticates, then hands on.

    Source: RFC 6750, section 3: 401 with WWW-Authenticate, 403 `insufficient_scope`.
    """

    def __init__(self, app: ASGIApp, verifier: Verifier, *, roles: frozenset[str], has_sessions: bool) -> None:
        self._app = app
        self._has_sessions = has_sessions
        self._verifier = verifier
        self._roles = roles

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        token = _token(scope)
        principal = self._verifier.verify(token) if token else None
        if principal is None:
            detail = "this token is not known" if token else "a bearer token is needed"
            error = ', error="invalid_token"' if token else ""
            await _refuse(401, "not_allowed", detail, error)(scope, receive, send)
        elif not principal.roles & self._roles:
            detail = f"{principal.id} may not call tools"
            await _refuse(403, "not_allowed", detail, ', error="insufficient_scope"')(scope, receive, send)
        else:
            scope[SCOPE_KEY] = principal
            if self._has_sessions:  # the SDK's belong to the credential that opened them; it looks for this
                scope["user"] = AuthenticatedUser(AccessToken(token=token, client_id=principal.id, scopes=[]))
            # uvicorn leaves blanks around values; RFC 9110, section 5.5 has them removed.
            scope["headers"] = [(k, v.strip() if k.startswith(_MCP_PREFIX) else v) for k, v in scope["headers"]]
            await self._app(scope, receive, send)


def _token(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            token: str = value[len(_BEARER) :].strip().decode("latin-1")
            return token
    return ""


def _refuse(status: int, code: str, detail: str, error: str) -> JSONResponse:
    return JSONResponse(
        {"type": "about:blank", "title": "Not allowed", "status": status, "code": code, "detail": detail},
        status_code=status,
        media_type="application/problem+json",
        headers={"WWW-Authenticate": f'Bearer realm="mcpfleet"{error}'},
    )

"""Bearer tokens at the HTTP doors. Nothing behind it runs without a principal.

Refuses to know how tokens are made or kept: that is the Verifier's.
"""

from __future__ import annotations

from functools import partial

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from orchestrator.front.ports import Verifier
from orchestrator.front.who import AGAIN_KEY, SCOPE_KEY
from orchestrator.presented import Presented, presented
from tasks.errors import FleetError
from tasks.scopes import Scope, allows

_UNAUTHORIZED = 401
_MCP_PREFIX = b"mcp-"


class Guard:
    """Authenticates, then hands on.

    Source: RFC 6750, section 3: 401 with WWW-Authenticate, 403 `insufficient_scope`.
    """

    def __init__(self, app: ASGIApp, verifier: Verifier, *, has_sessions: bool, metadata: str = "") -> None:
        self._app = app
        self._has_sessions = has_sessions
        self._verifier = verifier
        self._metadata = f', resource_metadata="{metadata}"' if metadata else ""

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """ASGI."""
        shown = presented(scope)
        principal, detail, code = None, "a bearer token is needed: send `Authorization: Bearer …`", "not_allowed"
        if shown.token:
            try:
                principal, detail = await self._verifier.verify(shown), "this token is not known"
            except FleetError as error:
                if error.http_status != _UNAUTHORIZED:
                    await _unable(error)(scope, receive, send)
                    return
                detail, code = error.message, error.code
        if principal is None:
            words = self._metadata + (', error="invalid_token"' if shown.token else "")
            await _refuse(_UNAUTHORIZED, code, detail, words)(scope, receive, send)
        elif not allows(principal, Scope.TOOLS_READ):
            words = f'{self._metadata}, error="insufficient_scope", scope="{Scope.TOOLS_READ}"'
            await _refuse(403, "not_allowed", f"{principal.id} may not use tools", words)(scope, receive, send)
        else:
            scope[SCOPE_KEY], scope[AGAIN_KEY] = principal, partial(self._still, shown)
            if self._has_sessions:  # the SDK's belong to the credential that opened them; it looks for this
                scope["user"] = AuthenticatedUser(AccessToken(token=shown.token, client_id=principal.id, scopes=[]))
            # uvicorn leaves blanks around values; RFC 9110, section 5.5 has them removed.
            scope["headers"] = [(k, v.strip() if k.startswith(_MCP_PREFIX) else v) for k, v in scope["headers"]]
            await self._app(scope, receive, send)

    async def _still(self, shown: Presented) -> bool:
        """Asked when a body was waited for: what was good when it began may have been revoked since."""
        try:
            principal = await self._verifier.verify(shown)
        except FleetError:
            return False
        return principal is not None and allows(principal, Scope.TOOLS_READ)


def _refuse(status: int, code: str, detail: str, error: str = "") -> JSONResponse:
    return _problem(status, "Not allowed", code, detail, {"WWW-Authenticate": f'Bearer realm="mcpfleet"{error}'})


def _unable(error: FleetError) -> JSONResponse:
    """Nothing is wrong with the credential: too many tries from there, or its issuer is away."""
    wait_s = getattr(error, "retry_after_s", None)
    headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
    return _problem(error.http_status, "Not now", error.code, error.message, headers)


def _problem(status: int, title: str, code: str, detail: str, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail},
        status_code=status,
        media_type="application/problem+json",
        headers=headers,
    )

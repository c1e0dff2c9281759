"""The `Host` header check. On a loopback bind it stops a web page that resolves its own name to us.

Source: MCP 2025-11-25, Streamable HTTP security warning (DNS rebinding). There is no CORS: no
page of another origin may read an answer.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.api.problems import WrongHost, problem
from orchestrator.api.trace import trace_of


class HostGuard:
    """Wraps the whole application, the MCP paths too."""

    def __init__(self, app: ASGIApp, allowed: frozenset[str]) -> None:
        self._app, self._allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] == "http":
            host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
            if _name(host) not in self._allowed:
                names = ", ".join(sorted(self._allowed))
                mend = "if it is this fleet's, name it in MCPFLEET_ALLOWED_HOSTS"
                error = WrongHost(f"the Host {host[:80]!r} is not one of {names}; {mend}")
                await problem(error, trace_of(dict(scope["headers"]))).send(receive, send)
                return
        await self._app(scope, receive, send)


def _name(host: str) -> str:
    """Without the port; IPv6 keeps its brackets."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()

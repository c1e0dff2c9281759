"""What the MCP door can be told. Every field has a unit, a default and a reason.

Read from the environment by the orchestrator's own settings; nothing here touches `os.environ`.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK_HOSTS = ("127.0.0.1:*", "localhost:*", "[::1]:*")
LOOPBACK_ORIGINS = ("http://127.0.0.1:*", "http://localhost:*", "http://[::1]:*")


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """Settings of the MCP door."""

    name: str = "mcpfleet"
    version: str = "0.1.0"
    path: str = "/mcp"
    sse_path: str | None = None
    """HTTP+SSE for clients older than 2025-03-26, e.g. `/sse`. Off: the transport is deprecated."""
    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS
    """`Host` values answered; others get 421. A name a web page could rebind must not be here."""
    allowed_origins: tuple[str, ...] = LOOPBACK_ORIGINS
    """`Origin` values answered; others get 403. Requests without one are not from a browser."""
    body_limit_bytes: int = 4 * 1024 * 1024
    """Larger requests get 413 before they are parsed."""
    legacy_sessions: bool = False
    """Keep sessions for clients of the handshake era: they can then be asked for input and told of
    new tools, but must reach the replica that holds the session. Off, any replica serves any call."""
    inline_window_s: float = 1.0
    """A call that ends within this is answered inline also where the client knows tasks."""
    poll_interval_s: float = 1.0
    """How often a client should ask for its task."""
    task_ttl_s: float = 7 * 86_400.0
    """How long a client may count on its task after it was made."""
    tools_ttl_s: float = 5.0
    """How long a client may reuse tools/list; it hears of changes sooner where it listens."""
    page_size: int = 200
    """Tools in one page of tools/list."""
    watch_interval_s: float = 0.5
    """How often the fleet's tool list is looked at for changes."""
    keepalive_s: float = 15.0
    """A response that takes longer becomes a stream with pings, so that no proxy cuts it."""
    abandon_timeout_s: float = 5.0
    """How long the cancel of an abandoned call may take."""
    resource_metadata: str = ""
    """URL that a 401 names, where a client finds its issuer (RFC 9728); empty without one."""
    bare_names: bool = False
    """List tools without their server's name. For the conformance fixture, whose names are fixed."""

"""An MCP server object that lives inside the node: requests are handed to it directly.

No session, no framing: the cheapest way to run Python tools of one's own, and what the conformance
fixture uses. Its tools are listed once, at start. Refuses to restart it: it has no process to lose.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

import structlog
from mcp.server import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.runner import modern_error_data, modern_on_request
from mcp.shared.exceptions import MCPError
from mcp_types import Implementation

from tasks.clock import Clock
from tasks.errors import SettingsError
from tasks.mcp_direct import DirectContext, OnRequest, envelope
from tasks.tool import ToolPolicy, ToolSpec
from worker.upstreams.errors import from_rpc, unavailable, unknown_tool
from worker.upstreams.listing import pages, usable
from worker.upstreams.result import result_text
from worker.upstreams.upstream import Ask, ServerStatus

log = structlog.get_logger()


def find_server(target: str) -> Server[Any]:
    """The server that `package.module:attribute` names; a callable is called without arguments.

    Raises:
        SettingsError: it cannot be imported, or is not an MCP server.
    """
    module_name, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"module server {target}: {error}; check mcpfleet.modules and PYTHONPATH") from error
    if not isinstance(found, Server | MCPServer) and callable(found):
        found = found()
    if isinstance(found, MCPServer):
        found = found._lowlevel_server  # noqa: SLF001 - as mcp.Client does; there is no public way
    if not isinstance(found, Server):
        raise SettingsError(f"module server {target}: is a {type(found).__name__}, not an mcp Server or MCPServer")
    return found


class InProcessServer:
    """An upstream without a transport."""

    def __init__(
        self,
        name: str,
        server: Callable[[], Server[Any]],
        *,
        policy_of: Callable[[str], ToolPolicy],
        on_change: Callable[[], None],
        clock: Clock,
        client_info: Implementation,
        result_bytes: int,
        start_s: float,
    ) -> None:
        self.name, self._find, self._policy_of, self._on_change = name, server, policy_of, on_change
        self._clock, self._client_info, self._result_bytes, self._start_s = clock, client_info, result_bytes, start_s
        self._on_request: OnRequest | None = None
        self._specs: tuple[ToolSpec, ...] = ()
        self._names: frozenset[str] = frozenset()
        self._state = "starting"
        self._error: str | None = None
        self._last_success_s: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._ends, self._settled = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        """Enter the server's lifespan and list its tools."""
        self._task = asyncio.create_task(self._live(), name=f"mcp-server-{self.name}")
        await self._settled.wait()

    async def close(self) -> None:
        """Leave the lifespan."""
        self._ends.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=self._start_s)

    def tools(self) -> tuple[ToolSpec, ...]:
        """As listed at start."""
        return self._specs

    def quiet_s(self) -> float | None:
        """It runs in the node: if that is alive, so is this."""
        return None

    def status(self) -> ServerStatus:
        """For people."""
        return ServerStatus(
            name=self.name,
            kind="module",
            state=self._state,
            tools=len(self._specs),
            error=self._error,
            last_success_s=self._last_success_s,
        )

    async def call(self, tool: str, arguments: dict[str, Any], ask: Ask) -> str:
        """One call, in the caller's task.

        Raises:
            UpstreamError: see `worker/upstreams/errors.py`.
        """
        if self._on_request is None or self._state != "ready":
            raise unavailable(self.name, self._state, self._error)
        if tool not in self._names:
            raise unknown_tool(f"{self.name}.{tool}")
        meta = envelope(self._client_info, ask.capabilities() or {}) | ask.call_meta()
        params: dict[str, Any] = {"name": tool, "arguments": arguments, "_meta": meta}
        for key in ("inputResponses", "requestState"):
            value = (ask.meta or {}).get(key)
            if value is not None:
                params[key] = value
        try:
            raw = await self._on_request(DirectContext(on_progress=ask.on_progress), "tools/call", params)
        except (
            Exception
        ) as error:  # the boundary of a foreign server object; modern_error_data logs what is not its own
            data = modern_error_data(error)
            rpc = MCPError(code=data.code, message=data.message, data=data.data)
            raise from_rpc(self.name, tool, rpc, limit_bytes=self._result_bytes) from error
        self._last_success_s = self._clock.mono_s()
        return result_text(raw, what=f"{self.name}.{tool}", limit_bytes=self._result_bytes)

    async def _live(self) -> None:
        try:
            server = self._find()
            async with server.lifespan(server) as state:
                self._on_request = modern_on_request(server, state)
                async with asyncio.timeout(self._start_s):
                    listed = await pages(self._page)
                self._specs = usable(listed, self.name, self._policy_of)
                self._names = frozenset(spec.definition["name"] for spec in self._specs)
                self._state = "ready"
                self._settled.set()
                self._on_change()
                await self._ends.wait()
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"
            log.exception("module_server_failed", server=self.name)
        finally:
            self._state = "closed" if self._ends.is_set() else "failed"
            self._on_request, self._specs = None, ()
            self._settled.set()
            self._on_change()

    async def _page(self, cursor: str | None) -> dict[str, Any]:
        assert self._on_request is not None
        params: dict[str, Any] = {"_meta": envelope(self._client_info, {})}
        if cursor is not None:
            params["cursor"] = cursor
        return await self._on_request(DirectContext(), "tools/list", params)

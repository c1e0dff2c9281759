"""This node's tools as one MCP server: over Streamable HTTP beside `/health`, and over stdio.

A call made here is a direct, local one: it is no Invocation. The ledger does not see it, nothing
retries it, and it takes no slot of the node's lanes; it has a bound of its own. Whoever wants
durability, placement and retries calls the fleet's server instead.

Owns the listing under `server.tool`, the bound, and who may call. Refuses to run a tool itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from operator import attrgetter
from typing import Any, Protocol

import mcp_types as types
import orjson
import structlog
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tasks import mcp_stdio
from tasks.tool import ToolSpec
from tasks.tracing import Trace, read_traceparent
from worker.upstreams.errors import UpstreamError, not_started

log = structlog.get_logger()

PATH = "/mcp"
PAGE_TOOLS = 500
CALLS_MAX = 64
"""Direct calls at once; the next ones wait."""
WAITING_MAX = 256
"""Direct calls that may wait; past it they are refused."""
PROGRESS_MAX = 100
"""Progress reports of one call not yet sent; past it the oldest are dropped."""
FLUSH_S = 1.0
LOOPBACK_HOSTS = ("127.0.0.1:*", "localhost:*", "[::1]:*")
INSTRUCTIONS = "The tools of one mcpfleet node, called directly: not queued, not retried, not recorded in the ledger."
_CARRIED = ("_meta", "inputResponses", "requestState")

Context = ServerRequestContext[Any, Any]
Progress = Callable[[float, float | None, str | None], None]


class ToolHost(Protocol):
    """The node's servers, as this door needs them."""

    @property
    def version(self) -> int:
        """Grows when any tool changes."""
        ...

    def tools(self) -> tuple[ToolSpec, ...]:
        """What can be called now."""
        ...

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float,
        meta: dict[str, Any] | None,
        invocation: str,
        trace: Trace | None,
        on_progress: Progress,
    ) -> str:
        """CallToolResult as JSON text; raises UpstreamError."""
        ...


async def _at_once() -> None:
    """Nothing to wait for."""


class NodeMcp:
    """The node as one MCP server."""

    def __init__(
        self,
        host: ToolHost,
        *,
        name: str,
        version: str,
        new_id: Callable[[], str],
        ready: Callable[[], Awaitable[None]] = _at_once,
        calls_max: int = CALLS_MAX,
        waiting_max: int = WAITING_MAX,
        named: Callable[[ToolSpec], str] = attrgetter("name"),
    ) -> None:
        """`ready` is awaited before tools are listed or called: servers may still be starting.

        `named`: what a tool is called here; unique.
        """
        self._named = named
        self._host, self._new_id, self._ready = host, new_id, ready
        self._slots, self._waiting, self._waiting_max = asyncio.Semaphore(calls_max), 0, waiting_max
        self._listed_version: int | None = None
        self._specs: dict[str, ToolSpec] = {}
        self._tools: list[types.Tool] = []
        self.server: Server[Any] = Server(
            name,
            version=version,
            instructions=INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
            # By name: without it the SDK runs the whole tools/list before every call over HTTP.
            get_tool_input_schema=self._schema,
        )

    async def serve_stdio(self) -> None:
        """Serve stdin and stdout until stdin ends."""
        await mcp_stdio.serve_stdio(self.server)

    def http(
        self,
        *,
        token: str,
        allowed_hosts: Sequence[str] = LOOPBACK_HOSTS,
        allowed_origins: Sequence[str] = (),
    ) -> tuple[Sequence[BaseRoute], AbstractAsyncContextManager[None]]:
        """Routes for `/mcp`, and what must be entered while they answer. Stateless, both eras.

        Args:
            token: bearer token that every request must carry.
            allowed_hosts: `Host` headers answered (`name:*` for any port); loopback unless told.
            allowed_origins: `Origin` headers answered; requests without one are no browser's.
        """
        origins = [*allowed_origins, *(f"http://{host}" for host in LOOPBACK_HOSTS)]
        security = TransportSecuritySettings(
            enable_dns_rebinding_protection=True, allowed_hosts=list(allowed_hosts), allowed_origins=origins
        )
        manager = StreamableHTTPSessionManager(self.server, stateless=True, security_settings=security)
        return (Route(PATH, endpoint=BearerOnly(StreamableHTTPASGIApp(manager), token)),), manager.run()

    # -- handlers

    async def _list(self, _context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        await self._ready()
        self._refresh()
        cursor = (params.cursor if params is not None else None) or "0"
        if not cursor.isdecimal() or (int(cursor) and int(cursor) >= len(self._tools)):
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown cursor: {cursor[:80]!r}; list from the beginning")
        start, end = int(cursor), int(cursor) + PAGE_TOOLS
        following = str(end) if end < len(self._tools) else None
        return types.ListToolsResult(tools=self._tools[start:end], next_cursor=following)

    async def _call(self, context: Context, params: types.CallToolRequestParams) -> Any:  # noqa: ANN401 - a wire dict; the SDK's type names only models
        await self._ready()
        self._refresh()
        spec = self._specs.get(params.name)
        if spec is None:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown tool: {params.name}")
        sent: Mapping[str, Any] = context.params or {}
        meta = {key: sent[key] for key in _CARRIED if key in sent}
        try:
            async with self._slot(), _progress_of(context) as on_progress, asyncio.timeout(spec.timeout_s):
                text = await self._host.call(
                    spec.name,
                    params.arguments or {},
                    timeout_s=spec.timeout_s,
                    meta=meta,
                    invocation=f"local-{self._new_id()}",
                    trace=read_traceparent((meta.get("_meta") or {}).get("traceparent")),
                    on_progress=on_progress,
                )
        except UpstreamError as error:
            return _failed(error.info.message, error.info.code)
        except TimeoutError:
            return _failed(f"{spec.name} did not end within {spec.timeout_s:g} s and was cancelled", "tool_timeout")
        return _as_sent(text, context.protocol_version)

    def _schema(self, name: str) -> Mapping[str, Any] | None:
        self._refresh()
        spec = self._specs.get(name)
        return None if spec is None else spec.input_schema

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._slots.locked() and self._waiting >= self._waiting_max:
            raise not_started("node_busy", f"{self._waiting} direct calls wait on this node already; call again later")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    def _refresh(self) -> None:
        if self._listed_version == self._host.version:
            return
        self._listed_version = self._host.version
        self._specs = {self._named(spec): spec for spec in self._host.tools()}
        self._tools = [
            types.Tool.model_validate({**spec.definition, "name": name}, by_name=False)
            for name, spec in self._specs.items()
        ]


class BearerOnly:
    """ASGI: passes on only requests that carry the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._wanted = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compares in constant time."""
        sent = next((value for key, value in scope.get("headers", ()) if key == b"authorization"), b"")
        if not hmac.compare_digest(sent, self._wanted):
            headers = {"WWW-Authenticate": "Bearer"}
            refusal = PlainTextResponse("send this node's bearer token\n", status_code=401, headers=headers)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


@contextlib.asynccontextmanager
async def _progress_of(context: Context) -> AsyncIterator[Progress]:
    """A callback that never blocks, and the task that sends on what it was told."""
    if "progressToken" not in ((context.params or {}).get("_meta") or {}):
        yield lambda *_: None
        return
    told: asyncio.Queue[tuple[float, float | None, str | None] | None] = asyncio.Queue(PROGRESS_MAX)

    def on_progress(progress: float, total: float | None, message: str | None) -> None:
        if told.full():
            told.get_nowait()
        told.put_nowait((progress, total, message))

    async def pump() -> None:
        while (report := await told.get()) is not None:
            await context.session.report_progress(*report)

    task = asyncio.create_task(pump())
    try:
        yield on_progress
        # What was reported before the result is sent before the result.
        if told.full():
            told.get_nowait()
        told.put_nowait(None)
        await asyncio.wait({task}, timeout=FLUSH_S)
    finally:
        task.cancel()
        await asyncio.wait({task})


def _as_sent(text: str, protocol_version: str) -> dict[str, Any]:
    result: dict[str, Any] = orjson.loads(text)
    result.setdefault("resultType", "complete")
    if result["resultType"] != "complete" and protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return _failed("the tool asks for input, which this client's protocol version cannot give", "input_required")
    return result


def _failed(message: str, code: str) -> dict[str, Any]:
    content = [{"type": "text", "text": f"{message} [{code}]"}]
    return {"resultType": "complete", "content": content, "isError": True}

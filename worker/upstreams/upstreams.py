"""All MCP servers of this node: what they offer together, and the way to call one tool.

Owns no protocol and no process: each server does, in `remote.py`, `inprocess.py` or `probe.py`. A
server that cannot start is a line in `status()`, never a reason for the others or the node to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import structlog
from mcp.server import Server
from mcp_types import Implementation

from tasks.clock import Clock
from tasks.grant import Grant
from tasks.tool import ToolSpec
from tasks.tracing import Trace
from worker.grants import AskGuard, Caller, Grants, no_guard, token_in, with_grant
from worker.upstreams.errors import unknown_tool
from worker.upstreams.filling import NoSecrets, SecretSource
from worker.upstreams.http import HttpLink
from worker.upstreams.inprocess import InProcessServer, find_server
from worker.upstreams.life import Limits
from worker.upstreams.probe import Probe
from worker.upstreams.remote import RemoteServer
from worker.upstreams.servers_entries import HttpEntry, ModuleEntry, ServerEntry
from worker.upstreams.servers_file import ServersFile
from worker.upstreams.stdio import StdioLink
from worker.upstreams.traced import CallTracer
from worker.upstreams.upstream import (
    Alarm,
    Approver,
    Ask,
    Keeping,
    OnRequest,
    OnSpend,
    Progress,
    ServerStatus,
    Upstream,
    nobody_pays,
)

log = structlog.get_logger()
U = TypeVar("U", bound=Upstream)

START_WAIT_S = 15.0
"""A node does not wait longer for its servers before it joins; what comes later is offered later."""


class Upstreams:
    """The servers of one node, sessions kept open."""

    def __init__(
        self,
        config: ServersFile,
        *,
        clock: Clock,
        draw: Callable[[], float],
        client_info: Implementation,
        limits: Limits | None = None,
        with_probe: bool = True,
        start_wait_s: float = START_WAIT_S,
        secrets: SecretSource | None = None,
    ) -> None:
        self._config, self._clock, self._draw, self._client_info = config, clock, draw, client_info
        self._limits, self._start_wait_s = limits or Limits(), start_wait_s
        self._secrets = secrets or NoSecrets()
        self._servers: dict[str, Upstream] = {Probe.name: Probe()} if with_probe else {}
        for entry in config.servers:
            self._servers[entry.name] = self._make(entry)
        self._starting: set[asyncio.Task[None]] = set()
        self.version = 0
        """Changes when tools, capabilities or health change."""
        self.on_change: Callable[[], None] = _nobody
        """Told then: the fleet should know at once."""
        self._known: tuple[int, tuple[ToolSpec, ...]] = (-1, ())
        self.tracer: CallTracer | None = None
        """Set where spans are made."""
        self.grants = Grants(clock)
        self.ask_guard: AskGuard = no_guard
        """Set once this node has joined: AuthGuardian, for its runs."""
        self._needs_grants = any(policy.grant is not None for policy in config.policies.values())

    def add_server(self, name: str, server: Server[Any]) -> None:
        """An MCP server object as one more upstream; before `start`."""
        self._servers[name] = self._in_process(name, lambda: server)

    def add(self, make: Callable[[Callable[[], None]], U]) -> U:
        """One more upstream, made with whom it tells of changes; before `start`."""
        upstream = make(self._changed)
        self._servers[upstream.name] = upstream
        return upstream

    async def start(self) -> None:
        """Start all at once; returns when each has started or failed, or when the wait is over."""
        self._starting = {asyncio.create_task(server.start()) for server in self._servers.values()}
        if self._starting:
            _, late = await asyncio.wait(self._starting, timeout=self._start_wait_s)
            if late:
                log.warning("servers_still_starting", count=len(late), waited_s=self._start_wait_s)

    async def close(self) -> None:
        """End all, at once; bounded by each server's own bound."""
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*(server.close() for server in self._servers.values()), return_exceptions=True)

    def restart(self, name: str, why: str) -> None:
        """Start a server again, once no call runs on it; at once where it waits to be started."""
        server = self._servers.get(name)
        if isinstance(server, RemoteServer):
            server.restart(why)

    def unhealthy(self) -> dict[str, str]:
        """Servers whose tools are offered and should not be called for now, and why."""
        return {
            status.name: status.unhealthy
            for server in self._servers.values()
            if (status := server.status()).unhealthy is not None and server.tools()
        }

    def mirrors(self) -> dict[str, tuple[str, ...]]:
        """Servers that keep copies of projects' files, and of which projects."""
        statuses = (server.status() for server in self._servers.values())
        return {status.name: status.mirrors for status in statuses if status.mirrors}

    def quiet_s(self, tool: str) -> float | None:
        """Seconds since the server of this tool was last heard of; None where there is nothing to be heard."""
        server = self._servers.get(tool.partition(".")[0])
        return None if server is None else server.quiet_s()

    def tools(self) -> tuple[ToolSpec, ...]:
        """What this node offers: the tools of every server that was ready, also while one is away (`unhealthy`)."""
        version, specs = self._known
        if version != self.version:
            specs = tuple(spec for server in self._servers.values() for spec in server.tools())
            self._known = (self.version, specs)
        return specs

    def capabilities(self) -> frozenset[str]:
        """The names of the servers that are ready."""
        return frozenset(status.name for status in self.status() if status.state == "ready")

    def status(self) -> tuple[ServerStatus, ...]:
        """How each server is doing."""
        return tuple(server.status() for server in self._servers.values())

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float,  # noqa: ARG002 - the interface's; see the docstring
        meta: dict[str, Any] | None,
        invocation: str,
        trace: Trace | None,
        on_progress: Progress,
        project: str | None = None,
        on_spend: OnSpend = nobody_pays,
        keeping: Keeping | None = None,
        approver: Approver | None = None,
        caller: Caller | None = None,
    ) -> str:
        """Call `server.tool`; its CallToolResult or InputRequiredResult as JSON text, as it came.

        Cancelling the task tells the server. `timeout_s` is kept by whoever calls: it cancels.

        Raises:
            UpstreamError: with what went wrong and what that allows; the tool needs a grant and has none, or it was
                revoked while the tool ran.
        """
        server_name, _, name = tool.partition(".")
        server = self._servers.get(server_name)
        if server is None:
            raise unknown_tool(tool)
        grant, meta = self._granted(tool, server, meta, caller)
        ask = Ask(invocation, trace, meta, on_progress, project, on_spend, keeping, approver, caller)
        with self.grants.use(grant, tool):
            return await self._traced(tool, server, name, arguments, ask)

    async def _traced(self, tool: str, server: Upstream, name: str, arguments: dict[str, Any], ask: Ask) -> str:
        trace = ask.trace
        if self.tracer is None or trace is None or not trace.is_sampled:
            return await server.call(name, arguments, ask)

        async def run(here: Trace, on_request: OnRequest) -> str:
            return await server.call(name, arguments, replace(ask, trace=here, on_request=on_request))

        return await self.tracer.call(tool, trace, run)

    def grant_type(self, tool: str) -> str | None:
        """The resource type that a call of it needs a grant of."""
        return self._config.policy_of(tool).grant

    def _granted(
        self, tool: str, server: Upstream, meta: dict[str, Any] | None, caller: Caller | None
    ) -> tuple[Grant | None, dict[str, Any] | None]:
        """Under what it runs, and what the tool's server is told.

        Here, because every way to call a tool passes here, and most have no caller.

        Raises:
            UpstreamError: the tool needs a grant, and this call has none that is good.
        """
        token = token_in(meta)
        policy = self._config.policy_of(tool) if self._needs_grants else None
        if policy is None or policy.grant is None:
            return None, meta if token is None else with_grant(meta, None)
        is_read_only = _is_read_only(server.tools(), tool)
        grant = self.grants.check(tool, policy, caller, token, is_read_only=is_read_only)
        return grant, with_grant(meta, grant)

    def _changed(self) -> None:
        self.version += 1
        self.on_change()

    def _make(self, entry: ServerEntry) -> Upstream:
        if isinstance(entry, ModuleEntry):
            return self._in_process(entry.name, partial(find_server, entry.target))

        def link(alarm: Alarm) -> HttpLink | StdioLink:
            limit = self._limits.result_bytes
            if isinstance(entry, HttpEntry):
                return HttpLink(entry, alarm=alarm, limit_bytes=limit, clock=self._clock, secrets=self._secrets)
            return StdioLink(entry, alarm=alarm, limit_bytes=limit, clock=self._clock, secrets=self._secrets)

        return RemoteServer(
            entry.name,
            "http" if isinstance(entry, HttpEntry) else "stdio",
            link,
            policy_of=self._config.policy_of,
            on_change=self._changed,
            clock=self._clock,
            draw=self._draw,
            limits=self._limits,
            client_info=self._client_info,
        )

    def _in_process(self, name: str, find: Callable[[], Server[Any]]) -> InProcessServer:
        return InProcessServer(
            name,
            find,
            policy_of=self._config.policy_of,
            on_change=self._changed,
            clock=self._clock,
            client_info=self._client_info,
            result_bytes=self._limits.result_bytes,
            start_s=self._limits.start_s,
        )


def _is_read_only(specs: tuple[ToolSpec, ...], tool: str) -> bool:
    found = next((spec for spec in specs if spec.name == tool), None)
    return found is not None and bool((found.definition.get("annotations") or {}).get("readOnlyHint"))


def _nobody() -> None:
    """Nobody listens yet."""

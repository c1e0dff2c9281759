"""The node's own MCP servers, as far as a project lends them to its runs.

A run has no network, and what its tools may need (keys, other machines) it must not have: so a server that a
project lists runs where it always does, in the node, and the agent calls it through its own runtime. Owns the
narrowing to one server. Refuses servers that are agents: a run that starts runs is the fleet's to count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mcp.server.lowlevel import Server

from tasks.grant import META_KEY
from tasks.ids import new_id
from tasks.tool import ToolSpec
from tasks.tracing import Trace
from worker.grants import AUTHGUARDIAN, AskGuard, Caller, with_grant
from worker.mcpserver import NodeMcp, Progress
from worker.sidecars.guard_line import Borrower, guard_line


class Host(Protocol):
    """The node's servers. `Upstreams` satisfies it."""

    version: int
    ask_guard: AskGuard

    def grant_type(self, tool: str) -> str | None:
        """The resource type that a call of it needs a grant of."""
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
        project: str | None = None,
        caller: Caller | None = None,
    ) -> str:
        """CallToolResult as JSON text; raises UpstreamError."""
        ...


Lend = Callable[[str, Borrower], Server[Any]]
"""Server's name and the run → an MCP server with that server's tools alone, under their own names."""


def lender(host: Host, version: str) -> Lend:
    """Of this node."""

    def lend(name: str, borrower: Borrower) -> Server[Any]:
        if name == AUTHGUARDIAN:
            return guard_line(host.ask_guard, borrower, version)
        one = _One(host, name, borrower)
        return NodeMcp(one, name=name, version=version, new_id=new_id, named=_own_name).server

    return lend


def _own_name(spec: ToolSpec) -> str:
    return str(spec.definition["name"])


class _One:
    """One server of the host, for one run."""

    def __init__(self, host: Host, name: str, borrower: Borrower) -> None:
        self._host, self._name, self._borrower = host, name, borrower

    @property
    def version(self) -> int:
        """The host's: it grows when any tool changes."""
        return self._host.version

    def tools(self) -> tuple[ToolSpec, ...]:
        """Its own."""
        return tuple(spec for spec in self._host.tools() if spec.server == self._name)

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        meta: dict[str, Any] | None,
        trace: Trace | None = None,
        **how: Any,  # noqa: ANN401 - the host's own
    ) -> str:
        """On behalf of the run, with what it was granted; what its agent says about grants is dropped."""
        by, meta = self._borrower, with_grant(meta, None)
        how["trace"] = trace or by.trace
        kind = self._host.grant_type(tool)
        if kind is None:
            return await self._host.call(tool, arguments, meta=meta, project=by.project, **how)
        meta = {**meta, "_meta": {**meta["_meta"], META_KEY: by.tokens.get(kind)}}
        return await self._host.call(tool, arguments, meta=meta, project=by.project, caller=by.caller, **how)

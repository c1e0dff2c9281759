"""The node's own MCP servers, as far as a project lends them to its runs.

A run has no network, and what its tools may need (keys, other machines) it must not have: so a server that a
project lists runs where it always does, in the node, and the agent calls it through its own runtime. Owns the
narrowing to one server. Refuses servers that are agents: a run that starts runs is the fleet's to count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mcp.server.lowlevel import Server

from tasks.ids import new_id
from tasks.tool import ToolSpec
from worker.mcpserver import NodeMcp, Progress


class Host(Protocol):
    """The node's servers. `Upstreams` satisfies it."""

    version: int

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
        trace_id: str | None,
        on_progress: Progress,
        project: str | None = None,
    ) -> str:
        """CallToolResult as JSON text; raises UpstreamError."""
        ...


Lend = Callable[[str, str | None], Server[Any]]
"""Server's name and the run's project → an MCP server with that server's tools alone, under their own names."""


def lender(host: Host, version: str) -> Lend:
    """Of this node."""

    def lend(name: str, project: str | None) -> Server[Any]:
        one = _One(host, name, project)
        return NodeMcp(one, name=name, version=version, new_id=new_id, named=_own_name).server

    return lend


def _own_name(spec: ToolSpec) -> str:
    return str(spec.definition["name"])


class _One:
    """One server of the host, for runs of one project."""

    def __init__(self, host: Host, name: str, project: str | None) -> None:
        self._host, self._name, self._project = host, name, project

    @property
    def version(self) -> int:
        """The host's: it grows when any tool changes."""
        return self._host.version

    def tools(self) -> tuple[ToolSpec, ...]:
        """Its own."""
        return tuple(spec for spec in self._host.tools() if spec.server == self._name)

    async def call(self, tool: str, arguments: dict[str, Any], **how: Any) -> str:  # noqa: ANN401 - the host's own
        """On behalf of the project."""
        return await self._host.call(tool, arguments, project=self._project, **how)

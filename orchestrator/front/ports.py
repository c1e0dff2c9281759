"""What the MCP door needs of the rest: the fleet, and who a token stands for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from orchestrator.presented import Presented
from tasks.invocation import Call, Invocation, Principal
from tasks.tool import ToolSpec
from tasks.wire import EventView, ExplainView, ToolView


class Fleet(Protocol):
    """The fleet as this door uses it. Satisfied by `orchestrator.fleet.Fleet`."""

    @property
    def tools_version(self) -> int:
        """Changes whenever the list of tools does."""
        ...

    async def accept(self, calls: Sequence[Call], principal: Principal) -> list[Invocation]:
        """Durable when it returns."""
        ...

    async def get(self, invocation_id: str, principal: Principal) -> Invocation:
        """With attempts and outcome; NotFound also for another tenant's."""
        ...

    async def wait(self, invocation_id: str, principal: Principal, timeout_s: float | None) -> Invocation:
        """When terminal, or as it stands when the time is over."""
        ...

    async def result_json(self, invocation: Invocation) -> str | None:
        """CallToolResult as text, wherever it is kept."""
        ...

    async def cancel(self, invocation_id: str, principal: Principal) -> Invocation:
        """Ends it if it waits, else asks its node to stop."""
        ...

    async def explain(self, invocation_id: str, principal: Principal) -> ExplainView:
        """Why it waits, why this node, why refused."""
        ...

    def events(self, invocation_id: str, principal: Principal) -> AsyncIterator[EventView]:
        """History so far, then live; ends with kind `ended`."""
        ...

    def tools(self, principal: Principal) -> list[ToolView]:
        """What this principal may call."""
        ...

    def tool(self, name: str) -> ToolSpec | None:
        """One tool by its `server.tool` name."""
        ...


class Verifier(Protocol):
    """Who sent a request."""

    async def verify(self, presented: Presented) -> Principal | None:
        """None for a token nobody issued.

        Raises:
            NotAllowed: saying why one that somebody issued is not good.
        """
        ...

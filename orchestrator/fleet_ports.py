"""What the fleet, as the doors see it, needs of the parts behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.ledger.dead_values import EVERY, DeadCount, DeadFilter, DeadLetter
from orchestrator.ledger.values import Accepted as AcceptedRow
from orchestrator.ledger.values import Cancelled, Filter, NewInvocation, Waiting
from tasks.invocation import Call, Invocation, Principal
from tasks.node import NodeState
from tasks.tool import ToolSpec
from tasks.wire import BacklogView


class Books(Protocol):
    """The ledger, as the doors need it."""

    async def accept(self, rows: Sequence[NewInvocation]) -> list[AcceptedRow]: ...
    async def get(self, invocation_id: str, tenant: str | None = None) -> Invocation: ...
    async def arguments_of(self, invocation_id: str) -> tuple[str | None, str | None]: ...
    async def cancel(self, invocation_id: str, tenant: str | None, at: float) -> Cancelled: ...
    async def listing(
        self, where: Filter, *, cursor: str | None, limit: int
    ) -> tuple[list[Invocation], str | None]: ...
    async def dead_letters(
        self, *, tenant: str | None, where: DeadFilter = EVERY, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[DeadLetter], str | None]: ...
    async def dead_counts(self, tenant: str | None, where: DeadFilter = EVERY) -> list[DeadCount]: ...
    async def discard_dead(self, ids: Sequence[str]) -> int: ...


class Dispatch(Protocol):
    """The dispatcher, as the doors need it."""

    def offer(self, waiting: Waiting) -> None: ...
    def withdraw(self, invocation_id: str) -> None: ...
    def knows(self, invocation_id: str) -> bool: ...
    def why(self, invocation_id: str) -> tuple[str, ...]: ...
    def backlog(self) -> BacklogView: ...
    async def pause(self, kind: str, name: str, is_paused: bool) -> None: ...


class Attempts(Protocol):
    """The open attempts, as a cancel needs them."""

    def cancel_requested(self, invocation_id: str, fence: int) -> None: ...


class Nodes(Protocol):
    """The registry, as the doors need it."""

    async def set_state(self, name: str, state: NodeState) -> None: ...


class Tools(Protocol):
    """The fleet's tools."""

    tools_version: int

    def tool(self, name: str) -> ToolSpec | None: ...


class Voice(Protocol):
    """Prompt cancels to nodes."""

    async def cancel(self, invocation_id: str, fence: int, node: str) -> None: ...


class Blobs(Protocol):
    """Payloads over the inline limit."""

    async def get(self, digest: str) -> bytes: ...


class Gate(Protocol):
    """The policies in force."""

    @property
    def version(self) -> int: ...
    def admit(self, calls: Sequence[Call], specs: Sequence[ToolSpec], principal: Principal) -> None: ...
    def sees(self, principal: Principal, spec: ToolSpec) -> bool: ...

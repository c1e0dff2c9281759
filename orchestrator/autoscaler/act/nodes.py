"""What the autoscaler asks of the registry: where a node stands, what it holds, and wishes for it.

`Registry` puts the orchestrator's own parts behind that Protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Protocol

from tasks.errors import NotFound
from tasks.node import NodeState

PRESENT = frozenset({NodeState.ACTIVE, NodeState.CORDONED, NodeState.DRAINING})
"""Joined, and heard of lately."""


class Nodes(Protocol):
    """The fleet's nodes, by name."""

    def state_of(self, node: str) -> NodeState | None:
        """None: not joined, or it left."""
        ...

    def held(self, node: str) -> int:
        """Attempts that were released to it and are not settled."""
        ...

    async def wish(self, node: str, state: NodeState) -> None:
        """Active, cordoned or draining; nothing happens where it is not joined.

        Raises:
            LedgerDown, EpochLost: it is not durable; wish again.
        """
        ...


class Member(Protocol):
    """A joined node."""

    @property
    def state(self) -> NodeState: ...


class Desk(Protocol):
    """Who changes a node's state."""

    async def set_state(self, name: str, state: NodeState) -> None: ...


class Registry:
    """Satisfies `Nodes` with the roster, the node desk and the open attempts."""

    def __init__(
        self, *, find: Callable[[str], Member | None], desk: Desk, attempts_of: Callable[[str], Sized]
    ) -> None:
        self._find, self._desk, self._attempts_of = find, desk, attempts_of

    def state_of(self, node: str) -> NodeState | None:
        """As the roster says."""
        member = self._find(node)
        return None if member is None or member.state is NodeState.LEFT else member.state

    def held(self, node: str) -> int:
        """From the attempts themselves, never counted."""
        return len(self._attempts_of(node))

    async def wish(self, node: str, state: NodeState) -> None:
        """Through the desk, which writes it down."""
        try:
            await self._desk.set_state(node, state)
        except NotFound:
            return  # it left in this very moment, which is what was to be waited for

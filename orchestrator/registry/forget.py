"""Forgetting nodes that fell silent and never came back: their row, and what has their name in Redis.

Owns since when each is silent; a restart counts anew. One whose machine was ended need not be waited for:
nobody comes back from it. Refuses while an attempt of it is open: the sweep ends
those first. A node that comes back later joins as a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from orchestrator.ledger.values import NodeRow, Outstanding
from orchestrator.registry.member import Member
from orchestrator.registry.rows import row_of
from tasks.clock import Clock
from tasks.node import NodeState

log = structlog.get_logger("mcpfleet.registry")


class Roster(Protocol):
    """The members."""

    def members(self) -> Iterable[Member]: ...
    def find(self, name: str) -> Member | None: ...
    def remove(self, name: str) -> Member | None: ...


class NodeStore(Protocol):
    """What of a node outlives the orchestrator's process."""

    async def save_node(self, row: NodeRow) -> None: ...
    async def forget_node(self, name: str) -> None: ...


class Attempts(Protocol):
    """What was released and is not settled."""

    def of_node(self, node: str) -> list[Outstanding]: ...


class Forgetting:
    """Looks over the silent ones."""

    def __init__(
        self,
        *,
        roster: Roster,
        store: NodeStore,
        attempts: Attempts,
        on_gone: Callable[[str], None],
        after_s: float,
        clock: Clock,
        has_ended: Callable[[str], bool] = lambda _node: False,
    ) -> None:
        """The registry's broom.

        Args:
            roster: who is looked over.
            store: where their rows are.
            attempts: what keeps them.
            on_gone: told the name of each.
            after_s: silent for so long.
            clock: of this process.
            has_ended: the machine of this node is gone for good.
        """
        self._roster, self._store, self._attempts = roster, store, attempts
        self._on_gone, self._after_s, self._clock = on_gone, after_s, clock
        self._has_ended = has_ended
        self._silent_since: dict[tuple[str, str], float] = {}

    async def look(self) -> None:
        """Forget who has been silent for too long. Called every few minutes by the leader.

        Raises:
            LedgerDown: the node stays, and is looked at again.
        """
        now_s = self._clock.mono_s()
        silent = {(m.name, m.incarnation): m for m in self._roster.members() if m.state is NodeState.LOST}
        self._silent_since = {key: self._silent_since.get(key, now_s) for key in silent}
        for key, member in silent.items():
            is_over = now_s - self._silent_since[key] >= self._after_s or self._has_ended(member.name)
            if not is_over or self._attempts.of_node(member.name):
                continue
            await self._forget(member)

    async def _forget(self, member: Member) -> None:
        await self._store.forget_node(member.name)
        found = self._roster.find(member.name)
        if found is not None and (found is not member or member.state is not NodeState.LOST):
            await self._store.save_node(row_of(found))  # it came back in this very moment
            return
        self._roster.remove(member.name)
        log.warning("node_forgotten", node=member.name, pool=member.offer.pool)
        self._on_gone(member.name)

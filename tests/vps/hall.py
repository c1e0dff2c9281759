"""The side of the fleet that is not rented: Redis and an orchestrator, at an address that machines reach.

The address is on a bridge of the demo's own; `Hall.laid` makes it and takes it away. Built on the fleet of
`tests/chaos`, without nodes: those come from the cloud.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.autoscaler.cloud.nspawn import network
from orchestrator.autoscaler.cloud.nspawn.network import Wire
from orchestrator.testing.postgres import Cluster
from tests.chaos.fleet import Fleet
from tests.chaos.ground import Ground
from tests.chaos.terms import Terms

BRIDGE_OWNER = "demo"
READY_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class BridgeGround(Ground):
    """Everything of ours listens on the bridge."""

    address: str = "127.0.0.1"
    bridge: str = ""

    @property
    def host(self) -> str:
        """Where machines reach it."""
        return self.address


@dataclass(frozen=True, slots=True)
class Told(Terms):
    """The usual terms, and further settings of the orchestrator."""

    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """For the orchestrator."""
        return Terms.environ.__get__(self) | dict(self.more)


class Hall(Fleet):
    """One orchestrator and one Redis."""

    @classmethod
    @asynccontextmanager
    async def laid(
        cls,
        folder: Path,
        more: Callable[[Wire], Mapping[str, str]],
        database: Cluster | None = None,
        *,
        owner: str = BRIDGE_OWNER,
    ) -> AsyncIterator[Hall]:
        """Up and answering; ended at the end, and the bridge with it.

        Args:
            folder: of the run.
            more: what machines are plugged into → further settings.
            database: PostgreSQL, instead of a file.
            owner: of the bridge, six letters at most.
        """
        await network.unlay(owner)
        wire = await network.laid(owner, None, secrets.randbelow)
        try:
            ground = BridgeGround(address=str(wire.gateway.ip), bridge=wire.bridge)
            hall = cls(folder, (), database, ground=ground, terms=Told(more=more(wire)))
            try:
                await hall.start()
                yield hall
            finally:
                await hall.close()
        finally:
            await network.unlay(owner)

    @property
    def bridge(self) -> str:
        """What machines are plugged into."""
        assert isinstance(self.ground, BridgeGround)
        return self.ground.bridge

    @property
    def url(self) -> str:
        """Of the orchestrator, for nodes and callers."""
        return next(iter(self.orchestrators.values()))

    async def nodes(self) -> list[dict[str, Any]]:
        """Every node that it knows."""
        answer = (await self.ask("GET", "/v1/nodes")).raise_for_status()
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def offers(self, tool: str) -> int:
        """Nodes that offer it."""
        items = (await self.ask("GET", "/v1/tools")).raise_for_status().json()["items"]
        return next((int(each["nodes"]) for each in items if each["name"] == tool), 0)

    async def claims(self) -> list[dict[str, Any]]:
        """Every machine that the autoscaler ordered."""
        return await self._items("/v1/scale/claims")

    async def decisions(self) -> list[dict[str, Any]]:
        """What the autoscaler decided and wrote down, oldest first."""
        return [item["decision"] for item in await self._items("/v1/scale/log?limit=1000")]

    async def _items(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.ask("GET", path)).raise_for_status().json()["items"]
        return items

    async def _is_whole(self) -> bool:
        return all([await self.answers(name) for name in self.orchestrators])

"""What a machine of a scaled pool would bring: remembered from its nodes, so that it is known while none is up.

Owns the rule of what is remembered. A join says it anew, with those of the pool that are joined besides;
a later change of an offer only adds, because a server that is down for a moment takes its tools with it
and they must not be forgotten with the pool's last node. Refuses to write: `dirty` says what to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.invocation import Lane
from tasks.node import Offer
from tasks.tool import ToolSpec

log = structlog.get_logger("mcpfleet.registry")
SPOT, ON_DEMAND = "spot", "on-demand"
"""Capabilities of claimed nodes: a call that must not be lost with its machine requires `on-demand`."""


@dataclass(frozen=True, slots=True)
class Made:
    """What the autoscaler would add to a pool's shape by ordering one kind of machine.

    Attributes:
        location: that its node would say.
        capabilities: beside those of the shape.
    """

    location: str
    capabilities: frozenset[str]


class PoolShape(BaseModel):
    """An offer without what differs between the nodes of one pool."""

    model_config = ConfigDict(frozen=True)
    slots: dict[Lane, int]
    capabilities: frozenset[str] = frozenset()
    """With the names of its servers, without `spot` and `on-demand`."""
    tools: tuple[ToolSpec, ...] = ()


class Shapes:
    """Shapes of the pools that the autoscaler sizes.

    Args:
        made: pool → kinds of machines it can order; other pools are not remembered.
    """

    def __init__(self, made: Mapping[str, tuple[Made, ...]] | None = None) -> None:
        self.made: Mapping[str, tuple[Made, ...]] = made or {}
        self._shapes: dict[str, PoolShape] = {}
        self._offers: dict[str, Offer] = {}
        """Node → its offer that was last looked at."""
        self._dirty: set[str] = set()

    def of(self, pool: str) -> PoolShape | None:
        """What a machine of it would bring; None of a pool that no node was ever seen of."""
        return self._shapes.get(pool)

    def all(self) -> Mapping[str, PoolShape]:
        """By pool."""
        return self._shapes

    def joined(self, offer: Offer, others: Iterable[Offer]) -> None:
        """A node joined; `others` are those of its pool that are there."""
        if offer.pool in self.made:
            self._offers[offer.name] = offer
            self._set(offer.pool, _merged([_shape_of(offer), *map(_shape_of, others)]))

    def offered(self, offer: Offer) -> None:
        """A node offers this; nothing happens where it did before."""
        if offer.pool not in self.made or self._offers.get(offer.name) is offer:
            return
        self._offers[offer.name] = offer
        known = self._shapes.get(offer.pool)
        self._set(offer.pool, _merged([_shape_of(offer), *([known] if known else [])]))

    def left(self, name: str) -> None:
        """A node is gone; what its pool offers is remembered."""
        self._offers.pop(name, None)

    def recall(self, saved: Mapping[str, str]) -> None:
        """Shapes as they were saved; what was seen since then counts first."""
        for pool, text in saved.items():
            if pool not in self.made:
                continue
            try:
                shape = PoolShape.model_validate_json(text)
            except ValidationError as error:
                log.warning("pool_shape_unreadable", pool=pool, error=str(error))
                continue
            known = self._shapes.get(pool)
            self._shapes[pool] = _merged([known, shape]) if known else shape

    def dirty(self) -> list[tuple[str, str]]:
        """Pools and JSON to save, each handed out once; hand the pools to `unsaved` if the ledger refuses."""
        rows = [(pool, self._shapes[pool].model_dump_json()) for pool in sorted(self._dirty)]
        self._dirty.clear()
        return rows

    def unsaved(self, pools: Iterable[str]) -> None:
        """These could not be saved."""
        self._dirty.update(pools)

    def tools(self) -> Iterable[ToolSpec]:
        """Of every shape."""
        return (tool for shape in self._shapes.values() for tool in shape.tools)

    def offering(self, tool: str) -> list[str]:
        """Pools whose machines would offer a tool."""
        return [pool for pool, shape in self._shapes.items() if any(spec.name == tool for spec in shape.tools)]

    def capabilities(self) -> frozenset[str]:
        """Of every machine that could be made."""
        made = (one.capabilities for pool in self._shapes for one in self.made[pool])
        return frozenset().union(*(shape.capabilities for shape in self._shapes.values()), *made)

    def _set(self, pool: str, shape: PoolShape) -> None:
        if self._shapes.get(pool) != shape:
            self._shapes[pool] = shape
            self._dirty.add(pool)


def _shape_of(offer: Offer) -> PoolShape:
    servers = {tool.server for tool in offer.tools}
    return PoolShape(
        slots=offer.slots, capabilities=(offer.capabilities | servers) - {SPOT, ON_DEMAND}, tools=offer.tools
    )


def _merged(shapes: list[PoolShape]) -> PoolShape:
    """Everything that one of them has; slots and doubles as the first one says."""
    tools = {tool.name: tool for shape in reversed(shapes) for tool in shape.tools}
    return PoolShape(
        slots=shapes[0].slots,
        capabilities=frozenset().union(*(shape.capabilities for shape in shapes)),
        tools=tuple(tools[name] for name in sorted(tools)),
    )

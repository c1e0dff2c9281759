"""The nodes that are joined, and what the fleet can do because of them, or could with a machine it may order.

In memory; `desk.py` writes the durable part through the ledger. `version` grows whenever placement
could change, `tools_version` whenever the list of tools does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import reduce

from orchestrator.registry.member import Member
from orchestrator.registry.shapes import Shapes
from tasks.errors import NotFound
from tasks.node import NodeState, Offer
from tasks.tool import Declared, ToolSpec


class Roster:
    """Members by name, and the index of tools derived from them and from what scaled pools are remembered for."""

    def __init__(self, shapes: Shapes | None = None) -> None:
        self.shapes = shapes or Shapes()
        self._members: dict[str, Member] = {}
        self._tools: dict[str, ToolSpec] = {}
        self._offered_by: defaultdict[str, set[str]] = defaultdict(set)
        self.version = 0
        self.tools_version = 0

    def members(self) -> Iterable[Member]:
        """Every node that joined and did not leave."""
        return self._members.values()

    def names(self) -> list[str]:
        """The names of every node."""
        return list(self._members)

    def get(self, name: str) -> Member:
        """One node.

        Raises:
            NotFound: no such node is joined.
        """
        member = self._members.get(name)
        if member is None:
            raise NotFound("node", name, list(self._members))
        return member

    def find(self, name: str) -> Member | None:
        """One node, or None."""
        return self._members.get(name)

    def put(self, member: Member) -> None:
        """A node joined."""
        self._members[member.name] = member
        if member.state is not NodeState.LOST:
            self.shapes.joined(member.offer, self._mates(member))
        self.changed()

    def remove(self, name: str) -> Member | None:
        """A node left."""
        member = self._members.pop(name, None)
        if member is not None:
            self.shapes.left(name)
            self.changed()
        return member

    def changed(self) -> None:
        """Placement could change: count it, and index the tools again."""
        self.version += 1
        tools: dict[str, ToolSpec] = {}
        offered_by: defaultdict[str, set[str]] = defaultdict(set)
        for member in self._members.values():
            if member.state is NodeState.LEFT:
                continue
            for name, spec in member.tools.items():
                tools.setdefault(name, spec)
                offered_by[name].add(member.name)
            self.shapes.offered(member.offer)
        for spec in self.shapes.tools():
            tools.setdefault(spec.name, spec)
        if tools != self._tools:
            self.tools_version += 1
        self._tools, self._offered_by = tools, offered_by

    def tool(self, name: str) -> ToolSpec | None:
        """A tool that some joined node offers, be its lease over, or that a machine of a scaled pool would."""
        return self._tools.get(name)

    def declared(self, name: str) -> Declared | None:
        """As every node that offers it agrees; None where no node does now."""
        said = [member.tools[name].declared for member in self.offering(name)]
        return reduce(Declared.stricter, said) if said else None

    def pool_of(self, name: str) -> str | None:
        """The pool that a node joined in; None for one that is not known."""
        member = self.find(name)
        return None if member is None else member.offer.pool

    def incarnation_of(self, name: str) -> str | None:
        """Of the process that has this node's name now."""
        member = self._members.get(name)
        return None if member is None else member.incarnation

    def tools(self) -> dict[str, ToolSpec]:
        """Every tool of the fleet, those of pools that are at zero too."""
        return self._tools

    def offering(self, tool: str) -> list[Member]:
        """The nodes that offer a tool."""
        return [self._members[name] for name in sorted(self._offered_by.get(tool, ()))]

    def capabilities(self) -> set[str]:
        """Every capability some node offers, or a machine of a scaled pool would."""
        return {label for member in self._members.values() for label in member.capabilities} | (
            self.shapes.capabilities()
        )

    def pools(self) -> set[str]:
        """Every pool some node is in, and scaled ones of which one was."""
        return {member.offer.pool for member in self._members.values()} | set(self.shapes.all())

    def _mates(self, newcomer: Member) -> list[Offer]:
        return [
            member.offer
            for member in self._members.values()
            if member is not newcomer
            and member.offer.pool == newcomer.offer.pool
            and member.state not in {NodeState.LOST, NodeState.LEFT}
        ]

"""Nodes of a fake cloud's machines: they join, hold attempts, drain, leave and fall silent. And who enrols them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.autoscaler.act.nodes import PRESENT
from orchestrator.autoscaler.testing.cloud import FakeCloud, Made
from orchestrator.autoscaler.testing.points import Points
from tasks.errors import FleetError, NotFound
from tasks.node import NodeState


@dataclass(slots=True)
class Node:
    """One that joined."""

    state: NodeState = NodeState.ACTIVE
    held: int = 0
    is_leaving: bool = False
    """It was told to, and does so whatever is wished of it later."""


class FakeNodes:
    """Satisfies `Nodes` and `Enroller`."""

    def __init__(self, clouds: Sequence[FakeCloud], points: Points) -> None:
        self._clouds, self._points = clouds, points
        self.joined: dict[str, Node] = {}
        self.left: set[str] = set()
        self.enrolled: set[str] = set()
        self.provisioned: set[str] | None = None
        """Names that may join; None: no machine needs it."""
        self.joins = True
        """A broken image does not."""
        self.token_errors: list[FleetError] = []
        """Of the next tokens."""
        self.violations: list[str] = []
        for cloud in clouds:
            cloud.may_end = self.why_not_end

    def state_of(self, node: str) -> NodeState | None:
        """As the roster would say."""
        found = self.joined.get(node)
        return None if found is None else found.state

    def held(self, node: str) -> int:
        """Attempts."""
        found = self.joined.get(node)
        return 0 if found is None else found.held

    async def wish(self, node: str, state: NodeState) -> None:
        """Durable, then so."""
        await self._points.pass_by()
        found = self.joined.get(node)
        if found is not None and found.state is not NodeState.LOST:
            found.state = state
            found.is_leaving = found.is_leaving or state is NodeState.DRAINING
        await self._points.pass_by()

    async def token(self, name: str, pool: str, ttl_s: float) -> str:  # noqa: ARG002 - the Protocol asks
        """Good until it is revoked."""
        await self._points.pass_by()
        if self.token_errors:
            raise self.token_errors.pop(0)
        self.enrolled.add(name)
        return f"not-a-secret-{name}"

    async def revoke(self, name: str) -> None:
        """Who is joined with it is put out.

        Raises:
            NotFound: nothing of that name.
        """
        await self._points.pass_by()
        if name not in self.enrolled:
            raise NotFound("enrolled node", name)
        self.enrolled.discard(name)
        node = self.joined.get(name)
        if node is not None:
            if node.state in PRESENT and node.held:
                self.violations.append(f"{name} was put out while it held {node.held} attempts")
            node.state = NodeState.LOST

    def why_not_end(self, made: Made) -> str | None:
        """Its node is at work, and nobody takes the machine away."""
        node = self.joined.get(made.order.name)
        if node is None or node.state not in PRESENT or not node.held or made.has_notice:
            return None
        return f"its node holds {node.held} attempts"

    def tick(self) -> None:
        """What nodes do on their own."""
        running = {m.order.name: m for cloud in self._clouds for m in cloud.made.values() if cloud.is_running(m)}
        for name in running:
            may_join = name in self.enrolled and (self.provisioned is None or name in self.provisioned)
            if self.joins and may_join and name not in self.joined and name not in self.left:
                self.joined[name] = Node()
        for name, node in list(self.joined.items()):
            if name not in running:
                if node.state is not NodeState.LOST:
                    node.state, node.held = NodeState.LOST, 0  # its attempts are ended by the sweep
            elif node.is_leaving and not node.held:
                del self.joined[name]
                self.left.add(name)

    def give_work(self, number: int) -> None:
        """To nodes that take some, one after the other."""
        open_nodes = [node for node in self.joined.values() if node.state is NodeState.ACTIVE]
        for index in range(number if open_nodes else 0):
            open_nodes[index % len(open_nodes)].held += 1

    def end_work(self) -> None:
        """Every attempt ends."""
        for node in self.joined.values():
            node.held = 0

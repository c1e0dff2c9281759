"""Everything around the actuator, and the actuator itself, which may die and be made again at any point."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random

from orchestrator.autoscaler.book.claims import ClaimBook
from orchestrator.autoscaler.book.pool_book import PoolBook
from orchestrator.autoscaler.cloud.provider import CloudProvider
from orchestrator.autoscaler.events import Leaked, ScaleEvent
from orchestrator.autoscaler.parts import Machinery, Surroundings, machinery_of
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.testing.books import MemoryBooks
from orchestrator.autoscaler.testing.cloud import FakeCloud, Made
from orchestrator.autoscaler.testing.nodes import FakeNodes
from orchestrator.autoscaler.testing.points import Crash, Points
from orchestrator.autoscaler.values import LIVE, ClaimState, Decision, NodeClaim, Rung
from tasks.errors import FleetError
from tasks.testing.clock import FakeClock

POOL = "builders"
FIRST, SECOND = Rung("near", type="small", region="eu-1"), Rung("far", type="small", region="us-1")
ROUND_S = 5.0


class Provisioning:
    """Satisfies `Provisioner`."""

    def __init__(self, nodes: FakeNodes, points: Points) -> None:
        self._nodes, self._points = nodes, points
        self.done: list[str] = []
        self.errors: list[FleetError] = []

    async def provision(self, claim: NodeClaim, token: str, environ: Mapping[str, str]) -> None:  # noqa: ARG002
        """Its node may join."""
        await self._points.pass_by()
        if self.errors:
            raise self.errors.pop(0)
        self.done.append(claim.id)
        if self._nodes.provisioned is not None:
            self._nodes.provisioned.add(claim.node)
        await self._points.pass_by()


class World:
    """One pool, two clouds."""

    def __init__(self, policy: ScalePolicy | None = None, *, seed: int = 0, lag_s: float = 0.0) -> None:
        self.random, self.clock = Random(seed), FakeClock()  # noqa: S311 - a test's dice
        self.points = Points(self.random)
        self.policy = policy or ScalePolicy(POOL, (FIRST, SECOND), max_machines=4, boot_limit_s=300.0)
        self.near = FakeCloud("near", self.clock, self.points, lag_s=lag_s)
        self.far = FakeCloud("far", self.clock, self.points, lag_s=lag_s)
        self.clouds: dict[str, CloudProvider] = {"near": self.near, "far": self.far}
        self.nodes = FakeNodes((self.near, self.far), self.points)
        self.books = MemoryBooks(
            self.points,
            max_machines={self.policy.pool: self.policy.max_machines},
            exists=self._exists,
            why_not_leave=self._why_not_leave,
        )
        self.provisioning = Provisioning(self.nodes, self.points)
        for cloud in (self.near, self.far):
            cloud.is_written = self.books.rows.__contains__
        self.events: list[ScaleEvent] = []
        self.cluster = "test"
        """As the pools file says; another name holds from the next start on."""
        self.crashes = 0
        self.parts = self._made()

    def standing(self) -> list[Made]:
        """Machines that truly are there."""
        return [*self.near.standing(), *self.far.standing()]

    def claims(self, *states: ClaimState) -> list[NodeClaim]:
        """As the ledger has them, oldest first."""
        found = [self.books.claim(claim_id) for claim_id in self.books.rows]
        return [claim for claim in found if not states or claim.state in states]

    def leaks(self) -> list[Leaked]:
        """That were told."""
        return [event for event in self.events if isinstance(event, Leaked)]

    def violations(self) -> list[str]:
        """What must never be, and was."""
        return [
            *self.books.violations, *self.near.violations, *self.far.violations, *self.nodes.violations,
            *self._twins(),
        ]  # fmt: skip

    async def round(self, target: int | None = None, seconds: float = ROUND_S) -> None:
        """One round of the loop towards `target`, and what the world does in `seconds`. It may die in it."""
        if target is not None:
            await self.survive(lambda: self.parts.actuator.act(self.decision(target), self.policy))
        await self.survive(self._step)
        self.clock.advance(seconds)
        self.nodes.tick()

    async def rounds(self, number: int, target: int | None = None, seconds: float = ROUND_S) -> None:
        """So many."""
        for _ in range(number):
            await self.round(target, seconds)

    async def survive(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it; where the process dies in it, there is another one."""
        try:
            await work()
        except Crash:
            assert self.points.is_dead
        except FleetError:
            pass  # the loop logs it and goes on
        if self.points.is_dead:
            await self.restart()

    async def restart(self) -> None:
        """What was in memory is lost."""
        await self.parts.actuator.stop()
        self.crashes += 1
        self.points.restart()
        self.parts = self._made()
        await self.parts.book.load()

    def decision(self, target: int) -> Decision:
        """As a strategy would decide: idle machines go first, busy ones are cordoned."""
        live = self.parts.book.live(self.policy.pool)
        noticed = [claim for claim in live if self.parts.notices.has(claim)]
        kept = [claim for claim in live if claim not in noticed]
        leaving = sorted(kept, key=lambda claim: (claim.state is ClaimState.READY, claim.id))[
            : max(0, len(kept) - target)
        ]
        idle = [claim.id for claim in leaving if not self.nodes.held(claim.node)]
        busy = [claim.id for claim in leaving if self.nodes.held(claim.node)]
        victims = (*(claim.id for claim in noticed), *idle)
        return Decision(self.policy.pool, self.clock.wall_s(), len(live), target, victims, tuple(busy))

    def is_settled(self, target: int, beside: str = "") -> bool:
        """So many machines serve, and there is nothing else, `beside` one that is not ours."""
        claims = [claim for claim in self.claims() if claim.state is not ClaimState.GONE]
        is_so = len(claims) == target and all(claim.state is ClaimState.READY for claim in claims)
        return is_so and {m.id for m in self.standing()} - {beside} == {claim.machine_id for claim in claims}

    def over_max(self) -> bool:
        """More than the policy allows count now."""
        return len([c for c in self.claims() if c.state in LIVE]) > self.policy.max_machines

    async def _step(self) -> None:
        await self.parts.actuator.step()
        await self.parts.actuator.settle()

    def _exists(self, claim: str) -> bool:
        return self.near.has_machine_of(claim) or self.far.has_machine_of(claim)

    def _why_not_leave(self, claim: str) -> str | None:
        made = next((machine for machine in self.standing() if machine.order.claim == claim), None)
        return None if made is None else self.nodes.why_not_end(made)

    def _twins(self) -> list[str]:
        names = [machine.order.claim for machine in self.standing()]
        return [f"{claim} has two machines" for claim in set(names) if names.count(claim) > 1]

    def _made(self) -> Machinery:
        self.pools = PoolBook(books=self.books, clock=self.clock, is_dry=False)
        given = Surroundings(
            book=ClaimBook(books=self.books, clock=self.clock, draw=self.random.randbytes, cluster=self.cluster),
            pools=self.pools,
            log=self.books,
            clouds=self.clouds,
            nodes=self.nodes,
            enroller=self.nodes,
            provisioner=self.provisioning,
            user_data=lambda claim, environ: f"#cloud-config of {claim.node} in {environ['MCPFLEET_NODE_POOL']}",
            url_for_nodes="http://192.0.2.1:8700",
            policies={self.policy.pool: self.policy},
            limits=FleetLimits(cluster=self.cluster),
            leads=lambda: not self.points.is_dead,
            clock=self.clock,
        )
        return machinery_of(given, self.events.append)


def run(story: Awaitable[None]) -> None:
    """One story in a loop of its own, in which tasks may die."""

    async def told() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        await story

    asyncio.run(told())

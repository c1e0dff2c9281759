"""A cloud in memory that outlives the orchestrator's process: slow to boot, slow to list, and able to fail.

Orders are idempotent by claim, as every provider promises; `makes_twins` breaks that promise. Refuses to
run anything: what becomes of a machine's node is `nodes.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from orchestrator.autoscaler.cloud.errors import CloudDown
from orchestrator.autoscaler.cloud.provider import Machine, Notice, Order, Power, Product
from orchestrator.autoscaler.testing.points import Points
from tasks.clock import Clock
from tasks.errors import FleetError


@dataclass(slots=True)
class Made:
    """One machine, as it truly is."""

    id: str
    order: Order
    created_at: float
    is_stopped: bool = False
    has_notice: bool = False
    gone_at: float | None = None


@dataclass(slots=True)
class Faults:
    """Of the next calls. `answers_lost`: carried out, and nobody hears."""

    refusals: list[FleetError] = field(default_factory=list)
    down: int = 0
    answers_lost: int = 0
    is_stuck: bool = False
    """Terminating is promised and not done."""


class FakeCloud:
    """Satisfies `CloudProvider`."""

    def __init__(self, name: str, clock: Clock, points: Points, *, boot_s: float = 20.0, lag_s: float = 0.0) -> None:
        self.name, self.boot_s, self.lag_s = name, boot_s, lag_s
        self._clock, self._points = clock, points
        self._ids = count(1)
        self.made: dict[str, Made] = {}
        self.faults = Faults()
        self.asked: list[str] = []
        """Machines that it was asked for by their id, each time."""
        self.unlisted: set[str] = set()
        """Machines that are there and in no list."""
        self.ended: list[str] = []
        """Machines that it was told to end, each time."""
        self.ends = asyncio.Event()
        """While it is not set, an end hangs."""
        self.ends.set()
        self.orders: list[Order] = []
        self.products: list[Product] = []
        self.violations: list[str] = []
        self.makes_twins = False
        self.is_written: Callable[[str], bool] = lambda _: True
        """Whether the books know a claim: they must before the cloud is asked."""
        self.may_end: Callable[[Made], str | None] = lambda _: None
        """Why a machine must not be ended now; None if it may."""

    async def create(self, order: Order) -> Machine:
        """The one machine of this claim."""
        await self._points.pass_by()
        self.orders.append(order)
        if not self.is_written(order.claim):
            self.violations.append(f"a machine was asked for before {order.claim} was written down")
        self._refuse()
        made = next((m for m in self._standing(order.cluster) if m.order.claim == order.claim), None)
        if made is None or self.makes_twins:
            made = Made(f"{self.name}-{next(self._ids)}", order, self._clock.wall_s())
            self.made[made.id] = made
        self._lose_answer()
        await self._points.pass_by()
        return self._shown(made)

    async def machines(self, cluster: str) -> list[Machine]:
        """With lag: young ones are missing, those that are gone are still there."""
        await self._points.pass_by()
        self._be_down()
        since = self._clock.wall_s() - self.lag_s
        ours = [m for m in self.made.values() if m.order.cluster == cluster and m.id not in self.unlisted]
        found = [m for m in ours if m.created_at <= since]
        return [self._shown(m) for m in found if m.gone_at is None or m.gone_at > since]

    async def machine(self, machine_id: str) -> Machine | None:
        """Young ones are missing here too."""
        await self._points.pass_by()
        self._be_down()
        self.asked.append(machine_id)
        made = self.made.get(machine_id)
        is_known = made is not None and made.created_at <= self._clock.wall_s() - self.lag_s
        return self._shown(made) if made is not None and is_known and made.gone_at is None else None

    async def terminate(self, machine_id: str) -> None:
        """Gone at once, unless it is stuck, or so young that it is not known yet."""
        self.ended.append(machine_id)
        await self.ends.wait()
        await self._points.pass_by()
        self._be_down()
        made = self.made.get(machine_id)
        if made is None or made.gone_at is not None or made.created_at > self._clock.wall_s() - self.lag_s:
            return  # one too young to be known is no error either
        if (why := self.may_end(made)) is not None:
            self.violations.append(f"{made.order.name} was ended although {why}")
        if not self.faults.is_stuck:
            made.gone_at = self._clock.wall_s()
        self._lose_answer()
        await self._points.pass_by()

    async def catalog(self) -> list[Product]:
        """As set."""
        return self.products

    async def notices(self, cluster: str) -> list[Notice]:
        """Of machines that are there."""
        await self._points.pass_by()
        self._be_down()
        return [Notice(m.id, self._clock.wall_s() + 120.0) for m in self._standing(cluster) if m.has_notice]

    async def close(self) -> None:
        """Nothing is open."""

    def standing(self) -> list[Made]:
        """Machines that truly are there, of any cluster."""
        return [made for made in self.made.values() if made.gone_at is None]

    def has_machine_of(self, claim: str) -> bool:
        """Whether one truly is there."""
        return any(made.order.claim == claim for made in self.standing())

    def is_running(self, made: Made) -> bool:
        """Booted, and neither stopped nor gone."""
        is_up = self._clock.wall_s() >= made.created_at + self.boot_s
        return is_up and not made.is_stopped and made.gone_at is None

    def take_away(self, machine_id: str) -> None:
        """As a cloud does with a spot machine."""
        self.made[machine_id].gone_at = self._clock.wall_s()

    def _standing(self, cluster: str) -> list[Made]:
        return [made for made in self.standing() if made.order.cluster == cluster]

    def _refuse(self) -> None:
        self._be_down()
        if self.faults.refusals:
            raise self.faults.refusals.pop(0)

    def _be_down(self) -> None:
        if self.faults.down:
            self.faults.down -= 1
            raise CloudDown(self.name, "the test says so")

    def _lose_answer(self) -> None:
        if self.faults.answers_lost:
            self.faults.answers_lost -= 1
            raise CloudDown(self.name, "the answer was lost")

    def _shown(self, made: Made) -> Machine:
        running = Power.RUNNING if self._clock.wall_s() >= made.created_at + self.boot_s else Power.PENDING
        number = made.id.rpartition("-")[2]
        return Machine(
            id=made.id,
            name=made.order.name,
            claim=made.order.claim,
            power=Power.STOPPED if made.is_stopped else running,
            address=f"192.0.2.{number}" if running is Power.RUNNING else None,
            type=made.order.type,
            region=made.order.region,
            is_spot=made.order.is_spot,
            created_at=made.created_at,
            expires_at=made.order.expires_at,
        )

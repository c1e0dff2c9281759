"""The leader's loop, with the real decisions: what is seen becomes machines, and is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from orchestrator.autoscaler.book.scale_log import ScaleLog
from orchestrator.autoscaler.book.wire import loads
from orchestrator.autoscaler.cloud.provider import Product
from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.limits import fit
from orchestrator.autoscaler.loop import ScaleLoop
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.show.scale_metrics import ScaleCollector, ScaleMetrics
from orchestrator.autoscaler.testing.world import FIRST, POOL, SECOND, World
from orchestrator.autoscaler.values import (
    ClaimState,
    Decision,
    LaneSeen,
    MachineSeen,
    Observation,
    Override,
)
from orchestrator.ledger.values import ScaleLogRow
from tasks.errors import LedgerDown
from tasks.invocation import Lane

POLICY = ScalePolicy(
    POOL, (FIRST, SECOND), min_machines=0, max_machines=4, settle_s=60.0, idle_to_zero_s=60.0, boot_limit_s=300.0,
    use_season=False,
)  # fmt: skip


class Sensors:
    """Sees what the test says waits, and the world's claims."""

    def __init__(self, world: World) -> None:
        self.world, self.waiting, self.begun = world, 0, 0
        self.breaks = False

    def begin(self) -> None:
        """A new leader."""
        self.begun += 1

    def observe(self) -> list[Observation]:
        """Now."""
        if self.breaks:
            raise LedgerDown("the test says so")
        now, nodes = self.world.clock.wall_s(), self.world.nodes
        claims = self.world.parts.book.standing(POOL)
        machines = tuple(
            MachineSeen(c.id, c.node, c.state, held=nodes.held(c.node), idle_s=300.0, age_s=now - c.created_at)
            for c in claims
        )
        ready = sum(claim.state is ClaimState.READY for claim in claims)
        lane = LaneSeen(
            waiting=self.waiting,
            slots=8 * ready,
            slots_per_machine=8,
            service_mean_s=1.0,
            service_p95_s=2.0,
            oldest_wait_s=10.0 if self.waiting else 0.0,
            arrivals_per_s=self.waiting / 60.0,
        )
        return [Observation(POOL, now, lanes={Lane.TOOLS: lane}, machines=machines)]


def loop_of(
    world: World, sensors: Sensors, *, policies: dict[str, ScalePolicy] | None = None, limits: FleetLimits | None = None
) -> ScaleLoop:
    """The loop around this world's actuator."""
    parts = world.parts
    return ScaleLoop(
        sensors=sensors, decide=decide, fit=fit, actuator=parts.actuator, book=parts.book, pools=world.pools,
        sweep=parts.sweep, looks=parts.looks, scale_log=ScaleLog(books=world.books, clock=world.clock),
        policies={POOL: world.policy} if policies is None else policies, limits=limits or FleetLimits(),
        providers=world.clouds, read_at=parts.read_at, clock=world.clock, tell=world.events.append,
    )  # fmt: skip


async def turn(world: World, loop: ScaleLoop, number: int, until: Callable[[], bool] = lambda: False) -> None:
    """So many rounds, or fewer."""
    for _ in range(number):
        await loop.round()
        await world.parts.actuator.settle()
        world.clock.advance(5.0)
        world.nodes.tick()
        if until():
            return


async def test_calls_that_wait_get_machines_and_none_stay_idle() -> None:
    """From nothing to what the backlog needs, and back to nothing when all is done."""
    world = World(POLICY)
    sensors = Sensors(world)
    loop = loop_of(world, sensors)
    sensors.waiting = 300
    await turn(world, loop, 30)
    assert len(world.claims(ClaimState.READY)) >= 1
    sensors.waiting = 0
    await turn(world, loop, 200, until=lambda: world.is_settled(0))
    assert world.is_settled(0)
    assert world.violations() == []


async def test_every_change_is_on_record_before_it_is_made() -> None:
    """The log has each decision that changed with what it was made of, and of the others one in five minutes."""
    world = World(POLICY)
    sensors = Sensors(world)
    sensors.waiting = 300
    loop = loop_of(world, sensors)
    await turn(world, loop, 1)
    first = loads(Decision, world.books.log[0].decision_json)
    assert first.target == len(world.claims()) > 0
    assert loads(Observation, world.books.log[0].observation_json).lanes[Lane.TOOLS].waiting == 300
    await turn(world, loop, 30)
    rows = len(world.books.log)
    await turn(world, loop, 120)
    assert 1 <= len(world.books.log) - rows <= 4


async def test_a_dry_run_says_and_does_not() -> None:
    """Decisions are made, logged and marked; nothing is ordered, and what was begun is left alone."""
    world = World(POLICY)
    sensors = Sensors(world)
    sensors.waiting = 300
    await world.pools.set_dry(True)
    loop = loop_of(world, sensors)
    await turn(world, loop, 5)
    assert loop.decisions[POOL].target > 0
    assert loads(Decision, world.books.log[0].decision_json).is_dry
    assert world.claims() == []
    assert world.near.orders == []
    await world.pools.set_dry(False)
    await turn(world, loop, 2)
    assert world.claims()


async def test_a_dry_run_goes_on_looking() -> None:
    """Prices are known, and machines on this host, which end themselves when nobody lists them, live on."""
    world = World(POLICY)
    world.near.products = [Product("small", "eu-1", is_spot=False, price_eur_h=0.01, billing_s=3600.0)]
    await world.pools.set_dry(True)
    loop = loop_of(world, Sensors(world))
    await turn(world, loop, 30)
    assert loop.observations[POOL].price_eur_h == 0.01
    look = world.parts.looks.of("near")
    assert look is not None
    assert world.clock.wall_s() - look.began_at <= 60.0
    assert world.near.orders == []


async def test_a_persons_word_holds_until_its_time() -> None:
    """An override sets the size whatever the load, also under a new leader, and ends by itself."""
    world = World(POLICY)
    sensors = Sensors(world)
    loop = loop_of(world, sensors)
    await world.pools.set_override(POOL, Override(3, world.clock.wall_s() + 300.0, by="ann"))
    await turn(world, loop, 20)
    assert world.is_settled(3)
    await world.restart()
    await world.pools.load()
    loop = loop_of(world, sensors)
    await turn(world, loop, 10)
    assert world.is_settled(3)
    await turn(world, loop, 200, until=lambda: world.is_settled(0))
    assert world.is_settled(0)


async def test_a_pool_that_is_no_longer_scaled_drains() -> None:
    """Machines of a pool that left the file are not paid for ever; busy ones finish first."""
    world = World(POLICY)
    await world.rounds(12, target=2)
    world.nodes.give_work(1)
    sensors = Sensors(world)
    loop = loop_of(world, sensors, policies={})
    await turn(world, loop, 50)
    assert len(world.standing()) == 1
    world.nodes.end_work()
    await turn(world, loop, 50)
    assert world.is_settled(0)
    assert world.violations() == []


@pytest.mark.parametrize("limits", [FleetLimits(max_machines=3), FleetLimits(budget_eur_h=1.5)])
async def test_a_pool_that_left_the_file_weighs_until_its_machines_are_gone(limits: FleetLimits) -> None:
    """Two busy machines of it are two of the fleet's three, by number and by money: one is left for the others."""
    rungs = (replace(FIRST, price_eur_h=0.5),)
    world = World(replace(POLICY, pool="dropped", ladder=rungs))
    await world.rounds(12, target=2)
    world.nodes.give_work(2)
    sensors = Sensors(world)
    sensors.waiting = 3000
    policy = replace(POLICY, ladder=rungs)
    loop = loop_of(world, sensors, policies={POOL: policy}, limits=limits)
    await turn(world, loop, 30)
    assert len(world.parts.book.live(POOL)) == 1
    assert [reason.rule for reason in loop.decisions[POOL].reasons][-1] == "fleet"
    world.nodes.end_work()
    await turn(world, loop, 60, until=lambda: len(world.parts.book.live(POOL)) == 3)
    assert len(world.parts.book.live(POOL)) == 3


async def test_a_fleet_that_stops_orders_no_replacement() -> None:
    """Calls that wait while its nodes leave are no demand any more; what there is ends, what is coming too."""
    world = World(POLICY)
    await world.rounds(12, target=2)
    sensors = Sensors(world)
    loop = loop_of(world, sensors)
    sensors.waiting = 3000
    await turn(world, loop, 2)
    assert len(world.parts.book.live(POOL)) > 2
    orders = len(world.near.orders)
    running = asyncio.create_task(loop.run())
    async with asyncio.timeout(30.0):
        await loop.wind_down()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert world.parts.book.live(POOL) == []
    await turn(world, loop, 60, until=lambda: world.is_settled(0))
    assert world.is_settled(0)
    assert len(world.near.orders) == orders
    assert loop.decisions[POOL].reasons[-1].rule == "stopping"


async def test_a_fleet_that_stops_lets_go_in_a_dry_run_too() -> None:
    """Claims do not stay ready of machines that whoever stops the fleet ends; the dry run is there again afterwards."""
    world = World(POLICY)
    await world.rounds(12, target=2)
    await world.pools.set_dry(True)
    loop = loop_of(world, Sensors(world))
    await turn(world, loop, 10)
    assert world.is_settled(2)
    running = asyncio.create_task(loop.run())
    async with asyncio.timeout(30.0):
        await loop.wind_down()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert world.parts.book.live(POOL) == []
    await turn(world, loop, 60, until=lambda: world.is_settled(0))
    assert world.is_settled(0)
    assert not loop.decisions[POOL].is_dry
    assert world.pools.is_dry


async def test_blindness_keeps_machines_moving() -> None:
    """A sensor that fails decides nothing; what drains and ends goes on."""
    world = World(POLICY)
    await world.rounds(12, target=2)
    await world.parts.actuator.act(world.decision(1), world.policy)
    sensors = Sensors(world)
    sensors.breaks = True
    await turn(world, loop_of(world, sensors), 40)
    assert world.is_settled(1)


async def test_the_next_machines_price_is_seen() -> None:
    """What decides about money sees the price of the rung that would be ordered now, as its cloud has it."""
    world = World(POLICY)
    world.near.products = [Product("small", "eu-1", is_spot=False, price_eur_h=0.25, billing_s=3600.0)]
    sensors = Sensors(world)
    loop = loop_of(world, sensors)
    await turn(world, loop, 15)
    seen = loop.observations[POOL]
    assert (seen.price_eur_h, seen.billing_s) == (0.25, 3600.0)


async def test_what_happens_is_counted() -> None:
    """Machines by state, decisions, boots, leaks and cost are on /metrics, each once."""
    world = World(replace(POLICY, ladder=(replace(FIRST, price_eur_h=0.5),)))
    registry = CollectorRegistry()
    metrics = ScaleMetrics(registry)
    registry.register(ScaleCollector(world.parts.book, {POOL: replace(POLICY, budget_eur_h=2.0)}, FleetLimits()))
    await world.rounds(12, target=2)
    loop = loop_of(world, Sensors(world))
    await turn(world, loop, 1)
    for event in world.events:
        metrics.hear(event)
    text = generate_latest(registry).decode()
    assert f'mcpfleet_scale_machines_total{{event="joined",pool="{POOL}"}} 2.0' in text
    assert f'mcpfleet_scale_machines{{pool="{POOL}",state="ready"}} 2.0' in text
    assert f'mcpfleet_scale_cost_eur_per_hour{{pool="{POOL}"}} 1.0' in text
    assert f'mcpfleet_scale_boot_seconds_count{{pool="{POOL}",provider="near"}} 2.0' in text
    assert "mcpfleet_scale_decisions_total" in text
    assert f'mcpfleet_scale_budget_eur_per_hour{{pool="{POOL}"}} 2.0' in text


class TwoPools(Sensors):
    """The world's pool, and one before it that has nothing."""

    def observe(self) -> list[Observation]:
        """Now."""
        [ours] = super().observe()
        return [replace(ours, pool="a-first", machines=()), ours]


@pytest.mark.parametrize("part", ["decide", "note", "history"])
async def test_a_fault_in_one_pool_holds_that_pool_alone(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks in it, the others are decided and served in the same round, and an operator is told."""
    world = World(POLICY)
    sensors = TwoPools(world)
    sensors.waiting = 300
    loop = loop_of(world, sensors, policies={"a-first": replace(POLICY, pool="a-first"), POOL: POLICY})

    def broken(real: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*given: Any, **named: Any) -> Any:
            if "a-first" in repr(given):
                raise ZeroDivisionError("a fault of ours")
            return real(*given, **named)

        return maybe

    if part == "decide":
        monkeypatch.setattr(loop, "_decide", broken(decide))
    elif part == "note":
        monkeypatch.setattr(world.books, "log_scale", broken(world.books.log_scale))
    else:
        monkeypatch.setattr(world.pools, "set_history", broken(world.pools.set_history))
    await turn(world, loop, 30, until=lambda: bool(world.claims(ClaimState.READY)))
    assert {claim.pool for claim in world.claims()} == {POOL}
    assert world.claims(ClaimState.READY)
    assert any("pool a-first is held by a fault" in alert for alert in loop.alerts)
    monkeypatch.undo()
    loop = loop_of(world, sensors, policies={"a-first": replace(POLICY, pool="a-first"), POOL: POLICY})
    await loop.round()
    assert not any("is held" in alert for alert in loop.alerts)


async def test_a_ledger_that_is_away_ends_the_round() -> None:
    """It is away for every pool: none is held, and each one's wait is not added to the others'."""
    world = World(POLICY)
    sensors = TwoPools(world)
    loop = loop_of(world, sensors, policies={"a-first": replace(POLICY, pool="a-first"), POOL: POLICY})
    asked = []

    async def away(row: ScaleLogRow) -> None:
        asked.append(row.pool)
        raise LedgerDown("the test says so")

    world.books.log_scale = away  # type: ignore[method-assign]
    await loop.round()
    assert asked == ["a-first"]
    assert loop.alerts == ()

"""What the process knows of itself: stores that are away, late turns, loops that hang, what ends soon."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from orchestrator.leader import Every, every
from orchestrator.measuring import expiries_of
from orchestrator.observability.fleet_gauges import SERVERS_MAX, FleetCollector
from orchestrator.observability.vitals import LAG_EVERY_S, Round, StandingCollector, Vitals
from orchestrator.testing.fleet import FakeFleet
from tasks.clock import SystemClock
from tasks.errors import LedgerDown
from tasks.node import NodeState
from tasks.testing.clock import FakeClock
from tasks.wire import NodeView

WITHIN_S = 60.0


class Stores:
    """A ledger and a Redis that answer, or do not."""

    is_ledger_up = is_redis_up = True

    async def dead_count(self) -> int:
        if not self.is_ledger_up:
            raise LedgerDown("away")
        return 3

    async def ping(self) -> object:
        if not self.is_redis_up:
            raise OSError("connection refused")
        return True


def vitals_of(stores: Stores) -> tuple[Vitals, CollectorRegistry]:
    """And their registry."""
    registry = CollectorRegistry()
    return Vitals(registry, dead_count=stores.dead_count, redis=stores, clock=SystemClock()), registry


async def test_a_store_that_is_away_is_seen_and_the_other_still_is() -> None:
    """Each by itself; dead letters keep their last number while nobody can count them."""
    stores = Stores()
    vitals, registry = vitals_of(stores)
    names = ("mcpfleet_ledger_up", "mcpfleet_broker_up", "mcpfleet_dead_letters")
    await vitals.look()
    assert [registry.get_sample_value(name) for name in names] == [1, 1, 3]
    stores.is_ledger_up = False
    await vitals.look()
    assert [registry.get_sample_value(name) for name in names] == [0, 1, 3]
    stores.is_ledger_up, stores.is_redis_up = True, False
    await vitals.look()
    assert [registry.get_sample_value(name) for name in names] == [1, 0, 3]


def test_what_was_not_looked_at_is_no_number() -> None:
    """A 0 would be stores that are away, and half an hour later a rise of dead letters that were there before."""
    _, registry = vitals_of(Stores())
    names = ("mcpfleet_ledger_up", "mcpfleet_broker_up", "mcpfleet_dead_letters")
    assert all(math.isnan(registry.get_sample_value(name) or 0.0) for name in names)


async def test_a_loop_that_is_held_up_is_late() -> None:
    """Turns are measured while it serves; one that something blocked is in the buckets above."""
    vitals, registry = vitals_of(Stores())
    running = asyncio.create_task(vitals.run())

    def turns(le: str) -> float:
        return registry.get_sample_value("mcpfleet_event_loop_lag_seconds_bucket", {"le": le}) or 0.0

    clock = SystemClock()
    async with asyncio.timeout(WITHIN_S):
        while turns("+Inf") - turns("0.25") < 1:
            end_s = clock.mono_s() + LAG_EVERY_S + 0.4
            while clock.mono_s() < end_s:  # what a loop must never do
                pass
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_round_that_hangs_grows_old() -> None:
    """Its age counts from its last end; a round that fails is a round."""
    went, hangs = asyncio.Event(), asyncio.Event()
    rounds = 0

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise ValueError("a fault of ours")
        went.set()
        await hangs.wait()

    loop = every(0.001, work, "ours")
    assert isinstance(loop, Every)
    assert loop.ended_at_s is None
    running = asyncio.ensure_future(loop())
    async with asyncio.timeout(WITHIN_S):
        await went.wait()
    assert loop.ended_at_s is not None
    assert loop.ended_at_s <= asyncio.get_running_loop().time()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_the_first_to_end_of_each_kind_is_shown() -> None:
    """One series for each kind, whatever the number of keys; none where nothing ends."""
    registry = CollectorRegistry()
    ends = [("api_key", 500.0), ("api_key", 900.0), ("certificate", 700.0)]
    registry.register(
        StandingCollector(leads=lambda: True, rounds=lambda: [Round("sweep", 1.0, 9.0)], expiries=lambda: ends)
    )
    get = registry.get_sample_value
    assert get("mcpfleet_expiry_timestamp_seconds", {"kind": "api_key"}) == 500
    assert get("mcpfleet_expiry_timestamp_seconds", {"kind": "certificate"}) == 700
    assert get("mcpfleet_loop_age_seconds", {"loop": "sweep"}) == 9
    assert get("mcpfleet_leading") == 1


def test_a_key_is_told_of_until_a_day_after_its_end() -> None:
    """Listed it is for weeks: told of for as long it would hide the next one. Short-lived ones are no news."""
    day_s, clock = 86_400.0, FakeClock()
    now = clock.wall_s()
    ends = [(now - 90 * day_s, now + left * day_s) for left in (-2.0, -0.5, 5.0)] + [(now - day_s, now + day_s)]
    core: Any = SimpleNamespace(stores=SimpleNamespace(clock=clock), keys=SimpleNamespace(ends=lambda: ends))
    settings: Any = SimpleNamespace(tls=False, tls_cert=None)
    found = list(expiries_of(settings, core, None)())
    assert found == [("api_key", now - 0.5 * day_s), ("api_key", now + 5.0 * day_s)]


def node(**changed: object) -> NodeView:
    """The fake fleet's, changed."""
    [seen] = FakeFleet(clock=FakeClock()).nodes()
    return seen.model_copy(update=changed)


def test_a_node_that_lies_about_its_servers_has_a_bounded_scrape() -> None:
    """What a node says it has is not believed without end; the same ones stay from scrape to scrape."""
    many = {f"server-{number:04}": "down" for number in range(5000)}
    told = node(unhealthy=many, notes=dict(many), circuits=dict(many))
    fleet, registry = FakeFleet(clock=FakeClock()), CollectorRegistry()
    registry.register(FleetCollector(nodes=lambda: [told], pools=fleet.pools, backlog=fleet.backlog))
    for name in ("mcpfleet_servers_unhealthy", "mcpfleet_circuits_open"):
        [family] = [one for one in registry.collect() if one.name == name]
        assert len(family.samples) == SERVERS_MAX
    assert registry.get_sample_value("mcpfleet_circuits_open", {"node": "a", "server": "server-0049"}) == 1


@pytest.mark.parametrize(
    ("changed", "name", "labels", "value"),
    [
        ({}, "mcp_worker_health", {"node": "a", "pool": "main"}, 1),
        ({"state": NodeState.LOST}, "mcp_worker_health", {"node": "a", "pool": "main"}, 0),
        ({"lease_left_s": 0.0}, "mcp_worker_health", {"node": "a", "pool": "main"}, 0),
        ({"clock_ahead_s": -3.5}, "mcpfleet_node_clock_ahead_seconds", {"node": "a"}, -3.5),
        ({"clock_ahead_s": None}, "mcpfleet_node_clock_ahead_seconds", {"node": "a"}, None),
        ({"circuits": {"": "why"}}, "mcpfleet_circuits_open", {"node": "a", "server": "all"}, 1),
        ({"unhealthy": {"git": "deaf"}}, "mcpfleet_servers_unhealthy", {"node": "a", "server": "git"}, 1),
        (
            {"unhealthy": {"claude": "credential anthropic is spent until 2026-11-22 10:00 UTC"}},
            "mcpfleet_sidecar_credential",
            {"node": "a", "server": "claude", "state": "spent"},
            1,
        ),
        (
            {"notes": {"glm": "credential zai is refused (the provider answered 401); runs fall back to claude"}},
            "mcpfleet_sidecar_credential",
            {"node": "a", "server": "glm", "state": "refused"},
            1,
        ),
    ],
)
def test_nodes_are_gauges(changed: dict[str, object], name: str, labels: dict[str, str], value: float | None) -> None:
    """Read when scraped: a node that goes takes its series along."""
    fleet = FakeFleet(clock=FakeClock())
    registry = CollectorRegistry()
    registry.register(FleetCollector(nodes=lambda: [node(**changed)], pools=fleet.pools, backlog=fleet.backlog))
    assert registry.get_sample_value(name, labels) == value

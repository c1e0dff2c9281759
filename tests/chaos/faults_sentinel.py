"""What goes wrong with a Sentinel set, instead of with one Redis.

Every fault of the data nodes has the target `redis`, as those of one Redis have: two of them at a time
could leave no replica to take over, which Sentinel does not claim to survive.
"""

from __future__ import annotations

import asyncio
import random
import shutil

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.fleet import REDIS, Fleet
from tests.chaos.sentinel import DATA, SENTINELS, SentinelSet

HEALS_WITHIN_S = 40.0
"""A demoted master is told so after 10 s, and copies everything."""
OF_ONE_SERVER = frozenset({"Redis killed, data kept", "Redis killed, data lost", "Redis paused"})
SENTINEL = "sentinel"


async def _master_gone(fleet: Fleet, target: str, rng: random.Random) -> None:
    """Long enough for another to take over; then it is back as that one's replica."""
    del target
    found = _of(fleet)
    master = await _master(found)
    await fleet.kill(master, rng.uniform(5.0, 10.0))
    await found.failed_over(master, HEALS_WITHIN_S)
    await found.healed(HEALS_WITHIN_S)


async def _master_restarted(fleet: Fleet, target: str, rng: random.Random) -> None:
    """Mostly back before the sentinels have agreed that it is down."""
    del target
    found = _of(fleet)
    await fleet.kill(await _master(found), rng.uniform(0.1, 1.5))
    await found.healed(HEALS_WITHIN_S)


async def _master_emptied(fleet: Fleet, target: str, rng: random.Random) -> None:
    """Back at once without its data, and if it is still the master its replicas throw away theirs."""
    del target
    found = _of(fleet)
    master = await _master(found)
    await fleet.kill(master, rng.uniform(0.3, 1.0))
    shutil.rmtree(found.folder_of(master) / "appendonlydir", ignore_errors=True)
    await found.healed(HEALS_WITHIN_S)


async def _master_frozen(fleet: Fleet, target: str, rng: random.Random) -> None:
    """It hangs, another takes over, and when it wakes it believes for a while that it is the master."""
    del target
    found = _of(fleet)
    frozen = fleet.pause(await _master(found))
    try:
        await asyncio.sleep(rng.uniform(5.0, 12.0))
    finally:
        fleet.resume(frozen)
    await found.healed(HEALS_WITHIN_S)


async def _failover_ordered(fleet: Fleet, target: str, rng: random.Random) -> None:
    del target, rng
    found = _of(fleet)
    master = await _master(found)
    await asyncio.to_thread(found.order_failover)
    await found.failed_over(master, HEALS_WITHIN_S)
    await found.healed(HEALS_WITHIN_S)


async def _replica_killed(fleet: Fleet, target: str, rng: random.Random) -> None:
    del target
    found = _of(fleet)
    master = await _master(found)
    await fleet.kill(rng.choice([name for name in DATA if name != master]), rng.uniform(0.3, 4.0))
    await found.healed(HEALS_WITHIN_S)


async def _sentinel_killed(fleet: Fleet, target: str, rng: random.Random) -> None:
    del target
    await fleet.kill(rng.choice(SENTINELS), rng.uniform(0.5, 8.0))


async def _sentinel_frozen(fleet: Fleet, target: str, rng: random.Random) -> None:
    """It takes connections and answers nothing; when it wakes it may know an old master."""
    del target
    frozen = fleet.pause(rng.choice(SENTINELS))
    try:
        await asyncio.sleep(rng.uniform(3.0, 10.0))
    finally:
        fleet.resume(frozen)


def _of(fleet: Fleet) -> SentinelSet:
    assert fleet.sentinels is not None
    return fleet.sentinels


async def _master(found: SentinelSet) -> str:
    return await found.failed_over(None, HEALS_WITHIN_S)


OF_SENTINEL = (
    Fault("master killed, back later", REDIS, _master_gone, 4),
    Fault("master killed, back at once", REDIS, _master_restarted, 2),
    Fault("master killed, data lost", REDIS, _master_emptied),
    Fault("master frozen", REDIS, _master_frozen, 3),
    Fault("failover ordered", REDIS, _failover_ordered, 3),
    Fault("replica killed", REDIS, _replica_killed),
    Fault("sentinel killed", SENTINEL, _sentinel_killed, 2),
    Fault("sentinel frozen", SENTINEL, _sentinel_frozen, 2),
)
FAULTS_WITH_SENTINEL = (*(fault for fault in FAULTS if fault.name not in OF_ONE_SERVER), *OF_SENTINEL)

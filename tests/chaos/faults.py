"""What goes wrong: each fault hurts the fleet, waits, and lets go again.

A fault names its target; no two faults have one target at the same time. Seconds are those of the default
lease; a fleet with shorter terms is hurt for shorter times, by the same factor.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass

from httpx import HTTPError
from redis.exceptions import RedisError

from orchestrator.testing.postgres import Cluster
from tests.chaos.fleet import REDIS, Fleet

LEDGER = "ledger"
ROLLS_WITHIN_S = 60.0
LAPSES_WITHIN_S, DRAINS_WITHIN_S = 30.0, 30.0
Harm = Callable[[Fleet, str, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        target: `redis`, `ledger`, or `node` or `orchestrator` for any of them.
        weight: how often, beside the others.
        is_loss: the node is away past its lease, and failover is measured from then.
    """

    name: str
    target: str
    harm: Harm
    weight: int = 1
    is_loss: bool = False


async def _killed(fleet: Fleet, target: str, rng: random.Random) -> None:
    await fleet.kill(target, rng.uniform(0.3, 2.0))


async def _vanishes(fleet: Fleet, target: str, rng: random.Random) -> None:
    away_s = fleet.terms.pace * rng.uniform(11.0, 16.0)
    await fleet.kill(target, away_s)
    await asyncio.sleep(away_s)


async def _disk_lost(fleet: Fleet, target: str, rng: random.Random) -> None:
    await fleet.kill(target, rng.uniform(0.5, 3.0), is_disk_lost=True)


async def _frozen(fleet: Fleet, target: str, rng: random.Random) -> None:
    """Longer than the lease; what piles up in its queue is there twice when it wakes."""
    frozen = fleet.pause(target)
    try:
        await asyncio.sleep(fleet.terms.pace * rng.uniform(1.0, 2.0))
        with suppress(RedisError):
            await _capture(fleet)
            await _play_again(fleet, rng)
        await asyncio.sleep(fleet.terms.pace * rng.uniform(7.0, 10.0))
    finally:
        fleet.resume(frozen)


def _asleep(at_least_s: float, at_most_s: float) -> Harm:
    """SIGSTOP for so long."""

    async def harm(fleet: Fleet, target: str, rng: random.Random) -> None:
        frozen = fleet.pause(target)
        try:
            await asyncio.sleep(fleet.terms.pace * rng.uniform(at_least_s, at_most_s))
        finally:
            fleet.resume(frozen)

    return harm


async def _frozen_until_lost(fleet: Fleet, target: str, rng: random.Random) -> None:
    """However long that takes: its lease has lapsed for certain when it wakes."""
    del rng
    frozen = fleet.pause(target)
    try:
        async with asyncio.timeout(LAPSES_WITHIN_S):
            while (await fleet.node_states()).get(target) != "lost":  # noqa: ASYNC110 - another process gives no event
                await asyncio.sleep(0.1)
    finally:
        fleet.resume(frozen)


async def _drained(fleet: Fleet, target: str, rng: random.Random) -> None:
    """An operator drains it by command: it empties itself and ends, and its next process joins as a new one."""
    del rng
    starts, path = fleet.kept[target].starts, f"/v1/nodes/{target}/state"
    async with asyncio.timeout(DRAINS_WITHIN_S):
        while fleet.kept[target].starts == starts:
            with suppress(HTTPError):  # away for another reason, or left already: the operator asks again
                await fleet.ask("POST", path, json={"state": "draining"}, timeout=5.0)
            await asyncio.sleep(0.5)


async def _stopped(fleet: Fleet, target: str, rng: random.Random) -> None:
    del rng
    await fleet.stop(target)


async def _servers_killed(fleet: Fleet, target: str, rng: random.Random) -> None:
    del rng
    fleet.kill_servers(target)


async def _wiped(fleet: Fleet, target: str, rng: random.Random) -> None:
    """Redis comes back with nothing."""
    await fleet.kill(target, rng.uniform(0.3, 2.0))
    for entry in fleet.kept[target].folder.iterdir():
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


async def _resets(fleet: Fleet, target: str, rng: random.Random) -> None:
    del target, rng
    async with fleet.redis() as redis:
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def _emptied(fleet: Fleet, target: str, rng: random.Random) -> None:
    del target, rng
    async with fleet.redis() as redis:
        await redis.flushall()


async def _full(fleet: Fleet, target: str, rng: random.Random) -> None:
    del target
    async with fleet.redis() as redis:
        await redis.config_set("maxmemory", 1)
    await asyncio.sleep(fleet.terms.pace * rng.uniform(2.0, 4.0))
    async with fleet.redis() as redis:
        await redis.config_set("maxmemory", 0)


async def _replayed(fleet: Fleet, target: str, rng: random.Random) -> None:
    del target
    await _play_again(fleet, rng)


async def _locked(fleet: Fleet, target: str, rng: random.Random) -> None:
    del target
    with closing(sqlite3.connect(fleet.ledger_file, timeout=2.0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(fleet.terms.pace * rng.uniform(2.0, 7.0))
        other.execute("ROLLBACK")


async def _database_killed(fleet: Fleet, target: str, rng: random.Random) -> None:
    """As by a crash: in the middle of whatever it was committing."""
    del target
    assert isinstance(fleet.database, Cluster)
    await asyncio.to_thread(fleet.database.stop, "immediate")
    await asyncio.sleep(fleet.terms.pace * rng.uniform(0.0, 4.0))
    await asyncio.to_thread(fleet.database.start)


async def _database_cut(fleet: Fleet, target: str, rng: random.Random) -> None:
    del target, rng
    assert isinstance(fleet.database, Cluster)
    await asyncio.to_thread(fleet.database.cut)


async def _rolled_out(fleet: Fleet, target: str, rng: random.Random) -> None:
    """A deployment: one orchestrator after the other is stopped, and back before the next is."""
    del target, rng
    for name in fleet.orchestrators:
        await fleet.stop(name)
        async with asyncio.timeout(ROLLS_WITHIN_S):
            while not await fleet.answers(name):  # noqa: ASYNC110 - another process gives no event
                await asyncio.sleep(0.1)


async def _capture(fleet: Fleet) -> None:
    """Keep what waits in the queues of nodes."""
    async with fleet.redis() as redis:
        async for key in redis.scan_iter(match="mcpfleet.n.*", _type="list"):
            messages: list[bytes] = await redis.lrange(key, 0, -1)
            fleet.captured += [(key.decode(), message) for message in messages]


async def _play_again(fleet: Fleet, rng: random.Random) -> None:
    """Old deliveries come once more, in any order."""
    chosen = rng.sample(fleet.captured, min(len(fleet.captured), 20))
    async with fleet.redis() as redis:
        for queue, message in chosen:
            await redis.lpush(queue, message)


NODE, ORCHESTRATOR = "node", "orchestrator"
"""Any one of them."""
FAULTS = (
    Fault("node killed, back at once", NODE, _killed, 3),
    Fault("node vanishes", NODE, _vanishes, 3, is_loss=True),
    Fault("node killed, disk lost", NODE, _disk_lost),
    Fault("node frozen past its lease", NODE, _frozen, 3),
    Fault("node stopped in order", NODE, _stopped),
    Fault("node drained by command", NODE, _drained),
    Fault("node's MCP servers killed", NODE, _servers_killed, 2),
    Fault("orchestrator killed", ORCHESTRATOR, _killed, 3),
    Fault("orchestrator stopped in order", ORCHESTRATOR, _stopped),
    Fault("orchestrator frozen", ORCHESTRATOR, _asleep(2.0, 6.0)),
    Fault("Redis killed, data kept", REDIS, _killed),
    Fault("Redis killed, data lost", REDIS, _wiped),
    Fault("Redis paused", REDIS, _asleep(9.0, 20.0)),
    Fault("Redis emptied", REDIS, _emptied, 2),
    Fault("Redis connections reset", REDIS, _resets, 2),
    Fault("Redis out of memory", REDIS, _full),
    Fault("old deliveries again", REDIS, _replayed),
)
LAPSE = Fault("node frozen until its lease lapses", NODE, _frozen_until_lost)
OF_REPLICAS = (Fault("orchestrators restarted one after the other", "rollout", _rolled_out, 3),)
OF_SQLITE = (Fault("SQLite locked by another process", LEDGER, _locked),)
OF_POSTGRESQL = (
    Fault("PostgreSQL killed, back at once or later", LEDGER, _database_killed, 2),
    Fault("PostgreSQL connections cut", LEDGER, _database_cut),
)

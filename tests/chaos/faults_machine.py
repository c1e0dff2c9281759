"""What goes wrong with a machine: its network is cut, its disk is full, its wall clock is wrong.

Each needs a ground that was prepared for it (`ground.py`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from tests.chaos.disks import Disks
from tests.chaos.faults import LEDGER, NODE, ORCHESTRATOR, Fault, Harm
from tests.chaos.fleet import Fleet
from tests.chaos.network import Network

FIVE_MINUTES_S = 300.0
Cut = Callable[[Network, str], None]


def _cut(at_least_s: float, at_most_s: float, *cuts: Cut) -> Harm:
    """One of these ways, for so long."""

    async def harm(fleet: Fleet, target: str, rng: random.Random) -> None:
        network = fleet.ground.network
        assert network is not None
        try:
            await asyncio.to_thread(rng.choice(cuts), network, target)
            await asyncio.sleep(fleet.terms.pace * rng.uniform(at_least_s, at_most_s))
        finally:
            await asyncio.to_thread(network.plug, target)

    return harm


async def _dies_cut_off(fleet: Fleet, target: str, rng: random.Random) -> None:
    """No socket of it says goodbye: what Redis then pops for it, it pops into a dead socket."""
    network = fleet.ground.network
    assert network is not None
    away_s = fleet.terms.pace * rng.uniform(2.0, 12.0)
    try:
        await asyncio.to_thread(_silence, network, target)
        await asyncio.sleep(rng.uniform(0.0, 2.0))
        await fleet.kill(target, away_s)
        await asyncio.sleep(away_s)
    finally:
        await asyncio.to_thread(network.plug, target)


async def _sockets_lost(fleet: Fleet, target: str, rng: random.Random) -> None:
    """Cut for a moment, and its connections are gone afterwards, with what is on its way on them."""
    network = fleet.ground.network
    assert network is not None
    try:
        await asyncio.to_thread(_silence, network, target)
        await asyncio.sleep(rng.uniform(0.5, 2.0))
        await asyncio.to_thread(network.forget_sockets, target)
        await asyncio.sleep(rng.uniform(0.0, 2.0))
    finally:
        await asyncio.to_thread(network.plug, target)


def _silence(network: Network, target: str) -> None:
    """Lost without a word, both ways."""
    network.deafen(target)
    network.mute(target)


def _full(at_least_s: float, at_most_s: float) -> Harm:
    """Not a byte of room, for so long."""

    async def harm(fleet: Fleet, target: str, rng: random.Random) -> None:
        folder = fleet.ledger_folder if target == LEDGER else fleet.kept[target].folder
        ends_s = asyncio.get_running_loop().time() + rng.uniform(at_least_s, at_most_s)
        try:
            while asyncio.get_running_loop().time() < ends_s:
                await asyncio.to_thread(Disks.fill, folder)
                await asyncio.sleep(0.1)
        finally:
            Disks.relieve(folder)

    return harm


async def _clock_set(fleet: Fleet, target: str, rng: random.Random) -> None:
    """Five minutes off, either way, for a while; its next process may start with it."""
    fleet.ground.set_clock(target, rng.choice((FIVE_MINUTES_S, -FIVE_MINUTES_S)))
    try:
        await asyncio.sleep(rng.uniform(1.0, 5.0))
        if rng.random() < 0.5:
            await fleet.kill(target)
        await asyncio.sleep(rng.uniform(1.0, 10.0))
    finally:
        fleet.ground.set_clock(target, 0.0)


async def _orchestrators_clock_set(fleet: Fleet, target: str, rng: random.Random) -> None:
    """While it runs. Should it end meanwhile, its next process starts right: see docs/adr/0010-fleet-clock.md."""
    starts = fleet.kept[target].starts
    fleet.ground.set_clock(target, rng.choice((FIVE_MINUTES_S, -FIVE_MINUTES_S)))
    try:
        for _ in range(rng.randrange(20, 100)):
            await asyncio.sleep(0.1)
            if fleet.kept[target].pid is None or fleet.kept[target].starts != starts:
                return
    finally:
        fleet.ground.set_clock(target, 0.0)


OF_NETWORK = (
    Fault("node's network cut past its lease", NODE, _cut(11.0, 16.0, Network.unplug, _silence), 4, is_loss=True),
    Fault("node's network cut for a moment", NODE, _cut(2.0, 5.0, Network.unplug, _silence), 3),
    Fault("node's network lossy one way", NODE, _cut(4.0, 12.0, Network.deafen, Network.mute), 3),
    Fault("node dies while it is cut off", NODE, _dies_cut_off, 2),
    Fault("node's sockets lost in a cut", NODE, _sockets_lost, 3),
)
OF_DISKS = (
    Fault("node's disk full", NODE, _full(3.0, 10.0), 5),
    Fault("SQLite's disk full", LEDGER, _full(2.0, 7.0), 5),
)
OF_CLOCKS = (
    Fault("node's clock five minutes off", NODE, _clock_set, 5),
    Fault("orchestrator's clock set", ORCHESTRATOR, _orchestrators_clock_set, 3),
)

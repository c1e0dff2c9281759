"""A fixed list of hosts that are there anyway: `create` takes a free one, `terminate` gives it back.

Owns who has which host, on disk. The host itself is never switched on or off, and its node is whatever
provisioning makes of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from orchestrator.autoscaler.cloud.errors import OrderRefused, OutOfCapacity
from orchestrator.autoscaler.cloud.options import Price, read_options
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Notice, Order, Power, Product, ProviderConfig
from orchestrator.autoscaler.cloud.records import Kept, RecordFolder, kept_of
from orchestrator.autoscaler.cloud.threads import VendorThreads
from tasks.clock import Clock, SystemClock
from tasks.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Host:
    """One host. `type` and `region` are the operator's own words, matched with a rung's."""

    address: str
    type: str = ""
    region: str = ""
    price_eur_h: Price | None = None
    cpus: int = 0
    memory_bytes: int = 0

    @property
    def key(self) -> str:
        """Its address as the name of a folder."""
        return re.sub(r"[^A-Za-z0-9.-]", "_", self.address)


@dataclass(frozen=True, slots=True)
class StaticOptions:
    """`hosts = ["10.0.0.5", { address = "10.0.0.6", type = "big", region = "cellar" }]`."""

    hosts: tuple[Host | str, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """A host that is in use."""

    kept: Kept
    address: str


class StaticProvider:
    """Satisfies `CloudProvider`."""

    def __init__(self, name: str, hosts: tuple[Host, ...], records: RecordFolder[Taken], clock: Clock) -> None:
        self._name = name
        self._hosts = hosts
        self._records = records
        self._clock = clock
        self._threads = VendorThreads(name, threads=1)  # they would wait for one lock anyway

    async def create(self, order: Order) -> Machine:
        """The host of this claim, or one that is free."""
        async with self._threads.bounded():
            return await self._threads.run(lambda: self._take(order))

    async def machines(self, cluster: str) -> list[Machine]:
        """Hosts in use, also those that are in the options no more."""
        async with self._threads.bounded():
            return [_machine(taken) for taken in (await self._taken()).values() if taken.kept.cluster == cluster]

    async def machine(self, machine_id: str) -> Machine | None:
        """None: nobody has it."""
        async with self._threads.bounded():
            return next((_machine(t) for t in (await self._taken()).values() if t.address == machine_id), None)

    async def terminate(self, machine_id: str) -> None:
        """Give it back."""
        async with self._threads.bounded():
            await self._threads.run(lambda: self._give_back(machine_id))

    async def catalog(self) -> list[Product]:
        """Types and regions of the list; nothing is billed by us."""
        seen = {(host.type, host.region): host for host in reversed(self._hosts)}
        return [
            Product(h.type, h.region, False, h.price_eur_h, 1.0, h.cpus, h.memory_bytes)  # noqa: FBT003 - no spot here
            for h in reversed(seen.values())
        ]

    async def notices(self, cluster: str) -> list[Notice]:  # noqa: ARG002 - as every provider's
        """Nobody takes them away."""
        return []

    async def close(self) -> None:
        """Hosts in use stay so."""
        self._threads.close()

    def _take(self, order: Order) -> Machine:
        with self._records.locked():
            taken = self._records.all()
            mine = next((each for each in taken.values() if _is_of(each.kept, order)), None)
            if mine is not None:
                return _machine(mine)
            suiting = [host for host in self._hosts if _suits(host, order)]
            for host in suiting:
                if host.key not in taken:
                    kept = replace(kept_of(order, self._clock.wall_s()), type=host.type, region=host.region)
                    mine = Taken(kept, host.address)
                    self._records.write(host.key, mine)
                    return _machine(mine)
        if not suiting:
            raise OrderRefused(self._name, f"no host has type {order.type!r} and region {order.region!r}")
        raise OutOfCapacity(self._name, "free host", f"{len(suiting)} would do and are in use")

    async def _taken(self) -> dict[str, Taken]:
        def look() -> dict[str, Taken]:
            with self._records.locked():
                return self._records.all()

        return await self._threads.run(look)

    def _give_back(self, machine_id: str) -> None:
        with self._records.locked():
            for key, taken in self._records.all().items():
                if taken.address == machine_id:
                    self._records.remove(key)


def open_static(config: ProviderConfig) -> CloudProvider:
    """Kind `static`."""
    options = read_options(StaticOptions, config)
    hosts = tuple(Host(host) if isinstance(host, str) else host for host in options.hosts)
    twice = sorted({host.address for host in hosts if sum(other.key == host.key for other in hosts) > 1})
    if twice or not hosts:
        what = f"names {', '.join(twice)} more than once" if twice else "is empty; name at least one host"
        raise SettingsError(f"{config.place} hosts {what}")
    return StaticProvider(config.name, hosts, RecordFolder(config.name, config.state_dir, Taken), SystemClock())


def _suits(host: Host, order: Order) -> bool:
    return order.type in {"", host.type} and order.region in {"", host.region}


def _is_of(kept: Kept, order: Order) -> bool:
    return (kept.cluster, kept.claim) == (order.cluster, order.claim)


def _machine(taken: Taken) -> Machine:
    return taken.kept.machine(taken.address, Power.RUNNING, taken.address)

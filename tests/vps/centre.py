"""The data centre behind a cloud's API: where what was rented over HTTP really boots, on this host.

Owns which machine and which address a server of the API has. Knows no API: `hetzner_api` and `ec2_api` ask it
for machines, look at them and end them, each in the words of its cloud.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.autoscaler.cloud.errors import OutOfCapacity
from orchestrator.autoscaler.cloud.local_vps import MOUNTS, LocalVps
from orchestrator.autoscaler.cloud.nspawn import options as nspawn_options
from orchestrator.autoscaler.cloud.nspawn.cgroups import Cgroups, mounted
from orchestrator.autoscaler.cloud.nspawn.host import Host
from orchestrator.autoscaler.cloud.nspawn.network import Wire
from orchestrator.autoscaler.cloud.nspawn.records import Records
from orchestrator.autoscaler.cloud.provider import Machine, Order, Power
from tests.vps.ground import left_of, provider

NAME = "centre"
TENANT = "rented"
"""Of every machine here: it is the API, not the data centre, that knows whose a server is."""
STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class PlacedWire(Wire):
    """The address is the API's choice."""

    address: str = ""

    def free_address(self, taken: object) -> str | None:
        """That one."""
        return self.address


class PlacedHost(Host):
    """A host whose next machine gets this address."""

    address = ""

    async def wire(self) -> Wire:
        """As it is, and the address."""
        there = await super().wire()
        return PlacedWire(there.bridge, there.gateway, self.address)


@dataclass
class Box:
    """One rented machine.

    Attributes:
        id: the data centre's own.
        boot: ends when its init is there, or why there is none.
    """

    id: str
    name: str
    address: str
    boot: asyncio.Task[Machine]
    ending: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """When the API asked for a machine, and to end it: wall clock by the machine's name."""

    to_build: dict[str, float] = field(default_factory=dict)
    to_end: dict[str, float] = field(default_factory=dict)


class DataCentre:
    """Machines of one state directory. All methods belong to one event loop."""

    def __init__(self, state_dir: Path, images: Mapping[str, Path], wire: Wire, most: int) -> None:
        named = {name: str(folder) for name, folder in images.items()}
        table = {"images": named, "bridge": wire.bridge, "stop_s": STOP_S, "max_machines": most}
        options = nspawn_options.read(f"[providers.{NAME}]", table)
        self._records = Records(state_dir)
        self._host = PlacedHost(options, self._records, Cgroups(mounted(MOUNTS.read_text())), secrets.randbelow)
        self._cloud = LocalVps(NAME, options, self._records, self._host, time.time)
        self._state_dir, self._wire = state_dir, wire
        self.most = most
        self._boxes: dict[str, Box] = {}
        self._one_at_a_time = asyncio.Lock()
        self.asked = Asked()

    @property
    def state_dir(self) -> Path:
        """Of its machines' disks."""
        return self._state_dir

    @property
    def wire(self) -> Wire:
        """Its network."""
        return self._wire

    async def rent(self, key: str, name: str, image: str, user_data: str, address: str = "") -> str:
        """Begin to boot a machine; its address, which it will have when it is up.

        Raises:
            OutOfCapacity: no address is free.
        """
        self.asked.to_build[name] = time.time()
        chosen = address or self._wire.free_address([box.address for box in self._boxes.values()])
        if chosen is None:
            raise OutOfCapacity(NAME, image, f"every address of {self._wire.gateway.network} is taken")
        order = Order(key, name, TENANT, "", image=image, user_data=user_data)
        boot = asyncio.create_task(self._booted(order, chosen), name=f"boot {name}")
        self._boxes[key] = Box(self._records.id_of(TENANT, key), name, chosen, boot)
        return chosen

    async def power(self, key: str) -> Power | None:
        """None: nothing of it is left, or never was."""
        box = self._boxes.get(key)
        if box is None:
            return None
        if box.ending is not None:
            if not box.ending.done() or box.ending.exception() is not None:
                return Power.ENDING
            del self._boxes[key]
            return None
        if not box.boot.done():
            return Power.PENDING
        machine = None if box.boot.exception() is not None else await self._cloud.machine(box.id)
        return Power.STOPPED if machine is None else machine.power

    async def end(self, key: str) -> None:
        """Begin to shut it down and remove it; again if that went wrong."""
        box = self._boxes.get(key)
        if box is None or (box.ending is not None and not (box.ending.done() and box.ending.exception())):
            return
        self.asked.to_end.setdefault(box.name, time.time())
        box.ending = asyncio.create_task(self._ended(box, self._cloud), name=f"end {box.name}")

    async def lose(self, name: str) -> str:
        """Take a machine away at once, while it works; its key."""
        key, box = next((key, box) for key, box in self._boxes.items() if box.name == name)
        at_once = provider(self._state_dir, Path("unused"), stop_s=0, bridge=self._wire.bridge)
        box.ending = asyncio.create_task(self._ended(box, at_once), name=f"lose {name}")
        await box.ending
        return key

    async def machines(self) -> list[Machine]:
        """As the host runs them."""
        return await self._cloud.machines(TENANT)

    def failures(self) -> list[str]:
        """Machines that did not boot or did not end, and why."""
        tasks = [task for box in self._boxes.values() for task in (box.boot, box.ending) if task is not None]
        return [f"{task.get_name()}: {task.exception()}" for task in tasks if task.done() and task.exception()]

    async def close(self) -> None:
        """What was begun is done; `sweep` ends the rest."""
        tasks = [task for box in self._boxes.values() for task in (box.boot, box.ending) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def left(self) -> dict[str, list[str]]:
        """What the kernel and the disk still have."""
        return left_of(self._state_dir)

    async def _booted(self, order: Order, address: str) -> Machine:
        async with self._one_at_a_time:  # the address is the host's until the machine is there
            self._host.address = address
            return await self._cloud.create(order)

    @staticmethod
    async def _ended(box: Box, cloud: LocalVps) -> None:
        await asyncio.wait([box.boot])
        await cloud.terminate(box.id)


async def sweep(state_dir: Path) -> None:
    """Nothing of this folder runs any more, whoever left it."""
    cloud = provider(state_dir, Path("unused"))
    await asyncio.gather(*(cloud.terminate(machine.id) for machine in await cloud.machines(TENANT)))
    await cloud.sweep()

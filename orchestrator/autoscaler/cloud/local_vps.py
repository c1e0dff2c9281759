"""The cloud provider `local-vps`: machines that really boot, on the orchestrator's own host.

Each has its own systemd, address, control group and disk, is made a node by cloud-init and Ansible like a
rented one, and can be lost like one: for tests, demonstrations and single hosts. Owns what an order means
here; `nspawn/` knows how a machine is booted, ended and found again. Refuses to be a wall between tenants:
machines share the host's kernel.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from orchestrator.autoscaler.cloud.errors import CloudDown, OrderRefused, OutOfCapacity, QuotaReached
from orchestrator.autoscaler.cloud.nspawn import host as nspawn_host
from orchestrator.autoscaler.cloud.nspawn import options as nspawn_options
from orchestrator.autoscaler.cloud.nspawn.cgroups import Cgroups, mounted
from orchestrator.autoscaler.cloud.nspawn.command import CommandFailed
from orchestrator.autoscaler.cloud.nspawn.host import Host
from orchestrator.autoscaler.cloud.nspawn.network import Wire
from orchestrator.autoscaler.cloud.nspawn.options import MachineType, Options
from orchestrator.autoscaler.cloud.nspawn.records import Record, Records
from orchestrator.autoscaler.cloud.provider import Machine, Notice, Order, Power, Product, ProviderConfig
from tasks.errors import SettingsError

HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
INIT_FILES = ("sbin/init", "usr/sbin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd")
MOUNTS = Path("/proc/self/mounts")
MEMINFO = Path("/proc/meminfo")


class Boots(Protocol):
    """What this needs of the host; `nspawn.host.Host` is it."""

    async def wire(self) -> Wire: ...
    async def boot(self, record: Record, kind: MachineType, wire: Wire, user_data: str) -> None: ...
    async def end(self, machine_id: str, *, stop_s: float) -> None: ...
    async def sweep(self) -> list[str]: ...
    def runs(self, machine_id: str) -> bool: ...


class LocalVps:
    """One state directory's machines. A `CloudProvider`; several processes may hold it at once."""

    def __init__(self, name: str, options: Options, records: Records, host: Boots, clock: Callable[[], float]) -> None:
        self._name = name
        self._options = options
        self._records = records
        self._host = host
        self._clock = clock
        self._ending: dict[str, asyncio.Lock] = {}

    async def create(self, order: Order) -> Machine:
        """The one machine of this claim; one whose making was interrupted is made anew, under the same id."""
        async with self._changing():
            record = self._records.get(self._records.id_of(order.cluster, order.claim))
            if record is None or (record.booted_at is None and not record.is_ending):
                record = await self._made(order, record)
        return self._seen(record)

    async def _made(self, order: Order, begun: Record | None) -> Record:
        """Written down, booted, and written down again."""
        kind, image = self._kind(order.type), self._image(order.image)
        self._check(order)
        await self._host.sweep()
        if begun is None:
            self._check_room(kind)
        wire = await self._host.wire()
        record = begun or self._record(order, image, wire)
        self._records.put(record)
        await self._host.boot(record, self._types()[kind], wire, order.user_data)
        record = record.model_copy(update={"booted_at": self._clock()})
        self._records.put(record)
        return record

    async def machines(self, cluster: str) -> list[Machine]:
        """Every machine with this tag."""
        async with self._telling():
            return [self._seen(record) for record in self._records.all() if record.cluster == cluster]

    async def machine(self, machine_id: str) -> Machine | None:
        """One machine; None once it is gone, or never was."""
        async with self._telling():
            record = self._record_of(machine_id)
            return None if record is None else self._seen(record)

    async def terminate(self, machine_id: str) -> None:
        """Shut down, or killed after `stop_s`; returns when nothing of it is left."""
        async with self._ending.setdefault(machine_id, asyncio.Lock()):  # said twice at once: the second waits
            await self._end(machine_id)
        self._ending.pop(machine_id, None)

    async def _end(self, machine_id: str) -> None:
        async with self._changing():
            record = self._record_of(machine_id)
            if record is None:
                return
            self._records.put(record.model_copy(update={"is_ending": True}))
        async with self._telling():  # not under the lock: a shutdown takes seconds
            await self._host.end(machine_id, stop_s=self._options.stop_s)
        async with self._changing():
            await self._records.drop(machine_id)
            await self._host.sweep()

    async def catalog(self) -> list[Product]:
        """The types of the pools file, on demand and as spot, at one price."""
        return [
            Product(
                type=name,
                region=self._options.region,
                is_spot=is_spot,
                price_eur_h=kind.price_eur_h,
                billing_s=kind.billing_s,
                cpus=kind.cpus,
                memory_bytes=kind.memory_bytes,
            )
            for name, kind in self._types().items()
            for is_spot in (False, True)
        ]

    async def notices(self, cluster: str) -> list[Notice]:
        """Machines that `announce` was called for."""
        async with self._telling():
            ours = [record for record in self._records.all() if record.cluster == cluster]
        return [Notice(record.id, record.notice_at) for record in ours if record.notice_at is not None]

    async def announce(self, machine_id: str, at: float) -> None:
        """Say that a machine will be taken away at this wall clock: what a spot market would do."""
        async with self._changing():
            record = self._record_of(machine_id)
            if record is not None:
                self._records.put(record.model_copy(update={"notice_at": at}))

    async def sweep(self) -> list[str]:
        """Remove what a killed orchestrator left of machines that have no record; `create` does it too."""
        async with self._changing():
            return await self._host.sweep()

    async def close(self) -> None:
        """Nothing is held between calls. Machines stay."""

    @asynccontextmanager
    async def _telling(self) -> AsyncIterator[None]:
        """What the host says as an error of a cloud."""
        try:
            yield
        except (CommandFailed, OSError) as error:
            raise CloudDown(self._name, str(error)) from error

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        async with self._telling(), self._records.locked():
            yield

    def _record_of(self, machine_id: str) -> Record | None:
        return self._records.get(machine_id) if machine_id.isalnum() else None

    def _seen(self, record: Record) -> Machine:
        return Machine(
            id=record.id,
            name=record.name,
            claim=record.claim,
            power=self._power(record),
            address=record.address,
            type=record.type,
            region=self._options.region,
            is_spot=record.is_spot,
            created_at=record.created_at,
            expires_at=record.expires_at,
        )

    def _power(self, record: Record) -> Power:
        if record.is_ending:
            return Power.ENDING
        if record.booted_at is None:
            return Power.PENDING
        return Power.RUNNING if self._host.runs(record.id) else Power.STOPPED

    def _types(self) -> dict[str, MachineType]:
        return dict(self._options.types)

    def _kind(self, wanted: str) -> str:
        name = wanted or next(iter(self._options.types))
        if name not in self._options.types:
            raise OrderRefused(self._name, f"no type {name!r} here, there are {', '.join(self._options.types)}")
        return name

    def _image(self, wanted: str) -> Path:
        folder = self._options.folder(wanted)
        if not any((folder / init).is_symlink() or (folder / init).exists() for init in INIT_FILES):
            told = f"image {wanted or self._options.image!r} is no root file system with an init at {folder.resolve()}"
            raise OrderRefused(self._name, f"{told}; deploy/vps/build-image makes one")
        if nspawn_options.UNSAFE & set(str(folder.resolve())):
            raise OrderRefused(self._name, f"image {folder.resolve()}: an overlay cannot have ',', ':' or '\\' there")
        return folder

    def _check(self, order: Order) -> None:
        """Raises OrderRefused."""
        if order.region not in {"", self._options.region}:
            raise OrderRefused(self._name, f"no region {order.region!r} here, there is {self._options.region!r}")
        if not HOST_NAME.fullmatch(order.name):
            raise OrderRefused(self._name, f"{order.name!r} cannot be the name of a host: a-z, 0-9 and '-', up to 63")
        namesake = (record for record in self._records.all() if record.name == order.name)
        other = next((each for each in namesake if (each.cluster, each.claim) != (order.cluster, order.claim)), None)
        if other is not None:
            raise OrderRefused(self._name, f"{order.name!r} is the name of machine {other.id}, of claim {other.claim}")

    def _check_room(self, kind: str) -> None:
        """Raises QuotaReached, OutOfCapacity."""
        if len(self._records.all()) >= self._options.max_machines:
            raise QuotaReached(self._name, f"max_machines = {self._options.max_machines}", is_ours=True)
        needed, free = self._types()[kind].memory_bytes, _free_memory_bytes(MEMINFO.read_text())
        if needed > free:
            raise OutOfCapacity(self._name, f"{kind!r}", f"it needs {needed} bytes of memory, {free} are free")

    def _record(self, order: Order, image: Path, wire: Wire) -> Record:
        address = wire.free_address([record.address for record in self._records.all()])
        if address is None:
            raise QuotaReached(self._name, f"every address of {wire.gateway.network} is taken", is_ours=True)
        return Record(
            id=self._records.id_of(order.cluster, order.claim),
            claim=order.claim,
            name=order.name,
            cluster=order.cluster,
            pool=order.pool,
            type=self._kind(order.type),
            image=image.resolve(),
            address=address,
            is_spot=order.is_spot,
            created_at=self._clock(),
            expires_at=order.expires_at,
        )


def open_local_vps(config: ProviderConfig) -> LocalVps:
    """The entry point `local-vps`.

    Raises:
        SettingsError: an option is wrong, this is not root, or a program is missing; it says which.
    """
    options = nspawn_options.read(config.place, config.options)
    lack = nspawn_host.lacks()
    if lack is not None:
        raise SettingsError(f"{config.place} {lack}")
    state_dir = config.state_dir.resolve()
    if nspawn_options.UNSAFE & set(str(state_dir)):
        raise SettingsError(f"state directory {state_dir}: an overlay cannot have ',', ':' or '\\' in its path")
    records = Records(state_dir)
    cgroups = Cgroups(mounted(MOUNTS.read_text()))
    return LocalVps(config.name, options, records, Host(options, records, cgroups, secrets.randbelow), time.time)


def _free_memory_bytes(meminfo: str) -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0

"""Machines as this host runs them: booted, looked at, ended, and what a killed orchestrator left of them removed.

A machine is a systemd-nspawn container that boots its own systemd, in a control group of its own, on an
overlay over an image that stays as it is. The overlay is mounted in a mount namespace of the machine's
processes, so it goes with the last of them, however they end. Refuses to know claims and orders.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

from orchestrator.autoscaler.cloud.nspawn import network, seed
from orchestrator.autoscaler.cloud.nspawn.cgroups import Cgroups
from orchestrator.autoscaler.cloud.nspawn.command import CommandFailed
from orchestrator.autoscaler.cloud.nspawn.network import Wire
from orchestrator.autoscaler.cloud.nspawn.options import MachineType, Options
from orchestrator.autoscaler.cloud.nspawn.records import Record, Records
from orchestrator.autoscaler.cloud.nspawn.waiting import until

NSPAWN = "systemd-nspawn"
STARTS_WITHIN_S = 30.0
CONSOLE = "console.log"
EXIT_CODE = "exit"
TOLD_CHARS = 300
PROPAGATE = Path("/run/systemd/nspawn/propagate")
RESOLVERS = Path("/etc/resolv.conf")
LAUNCH = """
code=$1 image=$2 upper=$3 work=$4 root=$5; shift 5
trap 'echo $? >"$code"' EXIT
while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift
mount -t overlay overlay -o "lowerdir=$image,upperdir=$upper,workdir=$work" "$root"
"$@"
"""
"""First into its control group: a launcher that comes late, after its machine was ended, finds none and stops."""
NEEDED = {
    NSPAWN: "systemd-container",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "setsid": "util-linux",
}


def lacks() -> str | None:
    """What this host lacks for such machines, and how to get it; None: nothing."""
    if os.geteuid() != 0:
        return "machines on this host need root: run the orchestrator as root, or choose kind `local-process`"
    packages = sorted({package for name, package in NEEDED.items() if shutil.which(name) is None})
    return f"this host cannot boot machines: apt-get install {' '.join(packages)}" if packages else None


class Host:
    """This host, for the machines of one state directory."""

    def __init__(self, options: Options, records: Records, cgroups: Cgroups, pick: Callable[[int], int]) -> None:
        self._options = options
        self._records = records
        self._cgroups = cgroups
        self._pick = pick

    async def wire(self) -> Wire:
        """What machines are plugged into: the operator's bridge, or our own, made where it is not there.

        Raises:
            CommandFailed: the operator's is not there or has no address, or the kernel refuses.
        """
        if not self._options.bridge:
            return await network.laid(self._records.owner, self._options.subnet, self._pick)
        wire = await network.found(self._options.bridge)
        if wire is None:
            raise CommandFailed(("ip", "addr", "show", self._options.bridge), "no such bridge with an IPv4 address")
        return wire

    async def boot(self, record: Record, kind: MachineType, wire: Wire, user_data: str) -> None:
        """From whatever is there of it to a machine whose systemd has started.

        Raises:
            CommandFailed, OSError: it did not start; what it said last is in the message.
        """
        await self.end(record.id, stop_s=0)
        folder = self._records.folder(record.id)
        layers = [folder / name for name in ("upper", "work", "root")]
        for layer in layers:
            await asyncio.to_thread(shutil.rmtree, layer, ignore_errors=True)
            layer.mkdir()
        words = {"name": record.name, "address": record.address, "gateway": str(wire.gateway.ip)}
        words["resolvers"] = _resolvers() if self._options.has_uplink else ""
        seed.sow(layers[0], machine_id=record.id, user_data=user_data, **words)
        groups = self._cgroups.make(record.id, cpus=kind.cpus, memory_bytes=kind.memory_bytes)
        await network.plug(record.id, record.address, wire, has_uplink=self._options.has_uplink)
        (folder / EXIT_CODE).unlink(missing_ok=True)
        paths = [folder / EXIT_CODE, record.image, *layers, *groups]
        await _launch([*map(str, paths), "--", *_container(record, layers[-1])], folder / CONSOLE)
        await self._until_started(record.id, folder)

    async def _until_started(self, machine_id: str, folder: Path) -> None:
        def is_over() -> bool:
            return any(map(_is_init, self._cgroups.processes(machine_id))) or (folder / EXIT_CODE).exists()

        if not await until(is_over, STARTS_WITHIN_S):
            raise CommandFailed((NSPAWN,), f"no init after {STARTS_WITHIN_S:g} s")
        if (folder / EXIT_CODE).exists():
            raise CommandFailed((NSPAWN,), _last_words(folder / CONSOLE))

    def runs(self, machine_id: str) -> bool:
        """Whether anything runs in it, as the kernel says."""
        return bool(self._cgroups.processes(machine_id))

    async def end(self, machine_id: str, *, stop_s: float) -> None:
        """Nothing of it is left in the kernel: processes, namespaces, cables, control groups.

        It may shut down for `stop_s` before it is killed.

        Raises:
            CommandFailed, OSError: something stays.
        """
        if stop_s and self._power_button(machine_id):
            await until(lambda: not self.runs(machine_id), stop_s)
        await self._cgroups.kill(machine_id)
        await network.unplug(machine_id)
        await self._cgroups.remove(machine_id)
        await asyncio.to_thread(shutil.rmtree, PROPAGATE / machine_id, ignore_errors=True)

    async def sweep(self) -> list[str]:
        """End what carries our owner and has no record: leavings of a killed orchestrator; their ids.

        Only under the records' lock. Our own bridge goes with the last machine.

        Raises:
            CommandFailed, OSError: something stays.
        """
        owner = self._records.owner
        known = {record.id for record in self._records.all()}
        seen = {name for name in self._cgroups.names() if name.startswith(owner)}
        seen |= await network.names(owner) | set(self._records.strays())
        for machine_id in sorted(seen - known):
            await self.end(machine_id, stop_s=0)
            await self._records.drop(machine_id)
        if not known:
            await network.unlay(owner)
        return sorted(seen - known)

    def _power_button(self, machine_id: str) -> bool:
        """Ask it to shut down; whether there was anybody to ask."""
        asked = self._named(machine_id, NSPAWN)
        for pid in asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return bool(asked)

    def _named(self, machine_id: str, name: str) -> list[int]:
        found = []
        for pid in self._cgroups.processes(machine_id):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if _command(pid) == name:
                    found.append(pid)
        return found


def _container(record: Record, root: Path) -> list[str]:
    return [
        NSPAWN,
        "--quiet",
        "--keep-unit",
        "--register=no",
        f"--machine={record.id}",
        f"--hostname={record.name}",
        f"--uuid={uuid.uuid5(uuid.NAMESPACE_OID, record.id)}",  # else all of an image have one machine-id
        f"--directory={root}",
        f"--network-namespace-path={network.space_of(record.id)}",
        "--capability=CAP_NET_ADMIN",  # for its own firewall, in its own namespace
        "--drop-capability=CAP_MKNOD",  # nothing else keeps it from the disks of the host
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--boot",
        "--console=pipe",
    ]


async def _launch(words: list[str], console: Path) -> None:
    """Outlives its orchestrator, in a session of its own, and leaves it no zombie, as nobody's child.

    Raises:
        CommandFailed: there is no shell, or it was refused.
    """
    command = [
        "setsid",
        "--fork",
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-eu",
        "-c",
        LAUNCH,
        "launch",
    ]
    with console.open("ab") as log:
        nothing = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, *words, stdin=nothing, stdout=log, stderr=log)
        if await process.wait():
            raise CommandFailed(tuple(command[:2]), _last_words(console))


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _is_init(pid: int) -> bool:
    """The first process of a machine, and its own program already."""
    with contextlib.suppress(OSError):  # it ended meanwhile
        status = Path(f"/proc/{pid}/status").read_text()
        inside = next(line.split()[2:] for line in status.splitlines() if line.startswith("NSpid:"))
        return inside[-1:] == ["1"] and _command(pid) != NSPAWN
    return False


def _resolvers() -> str:
    return RESOLVERS.read_text()


def _last_words(console: Path) -> str:
    return console.read_text(errors="replace").strip()[-TOLD_CHARS:] if console.exists() else ""

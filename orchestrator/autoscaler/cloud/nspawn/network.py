"""A network of our own on this host: a bridge, and for each machine a namespace on a cable to it.

Every name carries the owner of the state directory. Refuses to touch any interface, route or rule that is
not of its making; a bridge that the operator names is used and left as it is.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from orchestrator.autoscaler.cloud.nspawn.command import CommandFailed, run

SPACES = Path("/run/netns")
SPACE = "mcpfleet-vps-"
CABLE = "mv"
"""With a machine's id of 12 characters the name of an interface, which may have 15."""
BRIDGE = "mcpfleet-"
DEVICE = "host0"
"""Of a machine, inside."""
RANGE = ipaddress.IPv4Network("10.213.0.0/16")
PREFIX = 24


@dataclass(frozen=True, slots=True)
class Wire:
    """What machines are plugged into.

    Attributes:
        gateway: the host's address there: how machines reach the orchestrator and Redis.
    """

    bridge: str
    gateway: ipaddress.IPv4Interface

    def free_address(self, taken: Collection[str]) -> str | None:
        """The lowest that nobody has; None: all are taken."""
        used = {*taken, str(self.gateway.ip)}
        return next((str(each) for each in self.gateway.network.hosts() if str(each) not in used), None)


def space_of(machine_id: str) -> Path:
    """Its network namespace."""
    return SPACES / f"{SPACE}{machine_id}"


async def found(bridge: str) -> Wire | None:
    """A bridge that is there and has an address; None otherwise."""
    try:
        told = json.loads(await run("ip", "-4", "-json", "addr", "show", "dev", bridge))
    except CommandFailed:
        return None
    addresses = [address for link in told for address in link.get("addr_info", ())]
    if not addresses:
        return None
    return Wire(bridge, ipaddress.IPv4Interface(f"{addresses[0]['local']}/{addresses[0]['prefixlen']}"))


async def laid(owner: str, subnet: ipaddress.IPv4Network | None, pick: Callable[[int], int]) -> Wire:
    """The bridge of this owner, made if it is not there.

    Args:
        owner: of the state directory.
        subnet: None: a free one of `RANGE`.
        pick: a number below its argument, drawn at random.

    Raises:
        CommandFailed: the kernel refuses.
    """
    bridge = f"{BRIDGE}{owner}"
    wire = await found(bridge)
    if wire is not None:
        return wire
    chosen = subnet or await _free_subnet(pick)
    gateway = ipaddress.IPv4Interface(f"{chosen[1]}/{chosen.prefixlen}")
    with contextlib.suppress(CommandFailed):  # one without an address: its maker was killed in between
        await run("ip", "link", "del", bridge)
    await run("ip", "link", "add", bridge, "type", "bridge")
    await run("ip", "addr", "add", str(gateway), "dev", bridge)
    await run("ip", "link", "set", bridge, "up")
    return Wire(bridge, gateway)


async def plug(machine_id: str, address: str, wire: Wire, *, has_uplink: bool) -> None:
    """A namespace with this address, on the bridge.

    Raises:
        CommandFailed: the kernel refuses.
    """
    space, cable = space_of(machine_id).name, CABLE + machine_id
    await run("ip", "netns", "add", space)
    await run("ip", "link", "add", cable, "type", "veth", "peer", "name", DEVICE, "netns", space)
    await run("ip", "link", "set", cable, "master", wire.bridge, "up")
    await run("ip", "-n", space, "addr", "add", f"{address}/{wire.gateway.network.prefixlen}", "dev", DEVICE)
    await run("ip", "-n", space, "link", "set", "lo", "up")
    await run("ip", "-n", space, "link", "set", DEVICE, "up")
    if has_uplink:
        await run("ip", "-n", space, "route", "add", "default", "via", str(wire.gateway.ip))


async def unplug(machine_id: str) -> None:
    """Namespace and cable are gone; no error if they were.

    Raises:
        CommandFailed: the kernel refuses.
    """
    cable = CABLE + machine_id
    await _remove(cable)
    space = space_of(machine_id)
    if space in _spaces():
        await run("ip", "netns", "del", space.name)


async def unlay(owner: str) -> None:
    """The owner's bridge is gone; no error if it was."""
    bridge = f"{BRIDGE}{owner}"
    await _remove(bridge)


async def names(owner: str) -> set[str]:
    """Machines of this owner that have a namespace or a cable."""
    spaces = {entry.name.removeprefix(SPACE) for entry in _spaces() if entry.name.startswith(SPACE + owner)}
    cables = {name.removeprefix(CABLE) for name in await _links() if name.startswith(CABLE + owner)}
    return spaces | cables


def _spaces() -> list[Path]:
    return list(SPACES.glob("*"))


async def _remove(link: str) -> None:
    """A cable also goes by itself with the namespace at its other end, at a moment of the kernel's choice."""
    if link not in await _links():
        return
    try:
        await run("ip", "link", "del", link)
    except CommandFailed:
        if link in await _links():
            raise


async def _links() -> set[str]:
    return {link["ifname"] for link in json.loads(await run("ip", "-json", "link", "show"))}


async def _free_subnet(pick: Callable[[int], int]) -> ipaddress.IPv4Network:
    """One that no route of this host knows, the default one aside."""
    routes = json.loads(await run("ip", "-4", "-json", "route", "show", "table", "all"))
    taken = [ipaddress.ip_network(each["dst"], strict=False) for each in routes if each["dst"] != "default"]
    free = [each for each in RANGE.subnets(new_prefix=PREFIX) if not any(each.overlaps(other) for other in taken)]
    if not free:
        raise CommandFailed(("ip", "route"), f"no free subnet in {RANGE}; name one with the option `subnet`")
    return free[pick(len(free))]

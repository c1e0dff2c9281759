"""Nodes as machines of their own: each in a network namespace, on a cable that can be cut.

A veth pair per node, point to point; every end on this side has the one address at which the
orchestrator and Redis listen. Namespaces carry their owner in their name (`owner.py`), and the cables go
with them: `Network.sweep` removes what a killed run left. Needs root. Refuses to touch any other
interface, route or rule of this machine.

Cuts: `unplug` takes the node's end down (the node knows, this side hears nothing more); `deafen` and
`mute` send what goes to the node, or comes from it, to a MAC address that nobody has, so that it is lost
without a word (netem and iptables are often not there).
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.chaos.owner import is_orphan, owned

NOBODY = "02:00:00:00:00:01"
DEVICE = "eth0"
"""Of a node, inside its namespace."""
NAMESPACES = Path("/run/netns")
MAX_NODES = 200
TRIES = 50
ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class Cable:
    """One node's.

    Attributes:
        space: name of its namespace.
        here: the end on this side.
        address: the node's.
    """

    space: str
    here: str
    address: str


class Network:
    """The cables of one run."""

    def __init__(self, host: str, cables: dict[str, Cable]) -> None:
        self.host = host
        self._cables = cables

    @classmethod
    @contextmanager
    def laid(cls, names: Sequence[str]) -> Iterator[Network]:
        """Namespaces and cables for these nodes, removed at the end.

        Raises:
            OSError, subprocess.CalledProcessError: not root, or this machine has no such thing.
        """
        assert len(names) <= MAX_NODES, "one subnet of 254 addresses"
        cls.sweep()
        subnet, token = _free_subnet(), secrets.token_hex(3)
        hosts = [str(address) for address in subnet.hosts()]
        cables = {
            name: Cable(owned(name), f"mf{token}-{number}", hosts[number]) for number, name in enumerate(names, start=1)
        }
        try:
            for cable in cables.values():
                _lay(cable, hosts[0])
            yield cls(hosts[0], cables)
        finally:
            for cable in cables.values():
                _remove(cable.space)

    @staticmethod
    def sweep() -> list[str]:
        """Remove what runs left behind that were killed, and what still runs in there; their names."""
        found = [entry.name for entry in NAMESPACES.glob("*") if is_orphan(entry.name)]
        for space in found:
            _remove(space)
        return found

    def command(self, name: str, words: Sequence[str]) -> list[str]:
        """To run it there; the process keeps its number. What is no node stays on this side."""
        cable = self._cables.get(name)
        return [*words] if cable is None else ["nsenter", f"--net={NAMESPACES / cable.space}", *words]

    def unplug(self, name: str) -> None:
        """The link is down."""
        _ip("-n", self._cables[name].space, "link", "set", DEVICE, "down")

    def plug(self, name: str) -> None:
        """The link is up, and nothing is lost on it any more."""
        cable = self._cables[name]
        _ip("neigh", "flush", "to", cable.address, "dev", cable.here, "nud", "permanent")
        _ip("-n", cable.space, "neigh", "flush", "to", self.host, "dev", DEVICE, "nud", "permanent")
        _ip("-n", cable.space, "link", "set", DEVICE, "up")

    def forget_sockets(self, name: str) -> int:
        """The node's connections to this side are gone at once; how many.

        What still comes on them is answered by a reset. 0 also where the kernel has no INET_DIAG_DESTROY.
        """
        space = f"--net={NAMESPACES / self._cables[name].space}"
        return len(_run("nsenter", space, "ss", "-HKt", "dst", self.host, is_checked=False).splitlines())

    def deafen(self, name: str) -> None:
        """Nothing reaches the node; what it says is heard."""
        cable = self._cables[name]
        _ip("neigh", "replace", cable.address, "lladdr", NOBODY, "dev", cable.here, "nud", "permanent")

    def mute(self, name: str) -> None:
        """Nothing of what the node says is heard; it hears."""
        space = self._cables[name].space
        _ip("-n", space, "neigh", "replace", self.host, "lladdr", NOBODY, "dev", DEVICE, "nud", "permanent")


@cache
def why_not() -> str | None:
    """What this machine lacks for it."""
    if os.geteuid() != 0:
        return "network namespaces: not root"
    missing = [name for name in ("ip", "nsenter", "ss") if shutil.which(name) is None]
    if missing:
        return f"network namespaces: no {' and no '.join(missing)} here (apt-get install iproute2 util-linux)"
    try:
        with Network.laid(["probe"]):
            return None
    except (OSError, subprocess.SubprocessError) as error:
        return f"network namespaces: not allowed here ({_said(error)})"


def _lay(cable: Cable, host: str) -> None:
    _ip("netns", "add", cable.space)
    _ip("link", "add", cable.here, "type", "veth", "peer", "name", DEVICE, "netns", cable.space)
    _ip("addr", "add", host, "peer", f"{cable.address}/32", "dev", cable.here)
    _ip("link", "set", cable.here, "up")
    _ip("-n", cable.space, "addr", "add", cable.address, "peer", f"{host}/32", "dev", DEVICE)
    _ip("-n", cable.space, "link", "set", "lo", "up")
    _ip("-n", cable.space, "link", "set", DEVICE, "up")


def _remove(space: str) -> None:
    """The cable goes with its namespace, which goes once nothing runs in it."""
    if not (NAMESPACES / space).exists():
        return
    for pid in _run("ip", "netns", "pids", space).split():
        os.kill(int(pid), signal.SIGKILL)
    _run("ip", "-n", space, "link", "del", DEVICE, is_checked=False)
    _ip("netns", "del", space)


def _free_subnet() -> ipaddress.IPv4Network:
    """One that no route of this machine knows, the default one aside."""
    routes = json.loads(_run("ip", "-4", "-json", "route", "show", "table", "all"))
    named = [route["dst"] for route in routes if route["dst"] != "default"]
    taken = [ipaddress.ip_network(each, strict=False) for each in named]
    for _ in range(TRIES):
        found = ipaddress.IPv4Network(f"10.{random.randrange(1, 255)}.{random.randrange(256)}.0/24")
        if not any(found.overlaps(other) for other in taken):
            return found
    raise OSError(f"no free subnet of 10.0.0.0/8 in {TRIES} tries")


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str, is_checked: bool = True) -> str:
    return subprocess.run(words, check=is_checked, capture_output=True, text=True, timeout=ANSWER_S).stdout


def _said(error: Exception) -> str:
    told = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    return (told or str(error)).strip()

"""`mcpfleet up --autoscale`: a pool of machines that are processes, ordered by the orchestrator's autoscaler.

Owns the pools file of such a fleet, and the end of its machines: they are children of nobody, so
whoever stops the fleet asks their provider what is there. Refuses to start any: the autoscaler does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.local.servers import Installed, write_servers_file
from orchestrator.local.statefile import write_text_private
from tasks.errors import FleetError

if TYPE_CHECKING:
    from orchestrator.autoscaler.cloud.provider import CloudProvider

PROVIDER, CLUSTER = "local-process", "local"
POOLS_FILE, SERVERS_FILE, CLOUD_DIR = "pools.toml", "general.servers.json", "cloud"
SLOTS = 4
"""Of one machine: few, so that a laptop's load makes them come and go."""
STOP_SPARE_S = 25.0
"""After a node's drain: to stop what goes on all the same, close its MCP servers, settle and leave."""
LOOK_EVERY_S = 0.2
POLICY: Mapping[str, object] = {
    "target_wait_s": 1.0,
    "catch_up_s": 15.0,
    "settle_s": 60.0,
    "down_step": 0.5,
    "idle_to_zero_s": 60.0,
    "boot_s": 8.0,
    "boot_limit_s": 120.0,
    "use_season": False,
}
"""For people who watch: a machine is there in seconds, so it is let go after a minute."""


@dataclass(frozen=True, slots=True)
class MachinesPlan:
    """The pool that is sized.

    Attributes:
        most: machines at once; one is always there.
        servers: MCP servers of each, unless `servers_file` says.
    """

    pool: str
    most: int
    servers: tuple[Installed, ...] = ()
    servers_file: Path | None = None
    least: int = 1


def write_pools_file(state_dir: Path, plan: MachinesPlan, node_environ: Mapping[str, str], drain_s: float) -> Path:
    """The pools file of this fleet, with mode 0600; names of variables stand in it, and no values of theirs.

    Args:
        state_dir: of the fleet.
        plan: the pool.
        node_environ: what a node of this fleet would be started with: machines inherit it by name.
        drain_s: what runs on a machine may finish for so long.
    """
    servers = plan.servers_file
    if servers is None:
        servers = state_dir / SERVERS_FILE
        write_servers_file(servers, list(plan.servers))
    ours = {"MCPFLEET_NODE_SERVERS": str(servers), "MCPFLEET_NODE_DRAIN_S": f"{drain_s:g}"}
    slots = int(node_environ.get("MCPFLEET_NODE_SLOTS_TOOLS") or SLOTS)
    ours["MCPFLEET_NODE_SLOTS_TOOLS"] = str(slots)
    policy = {
        **POLICY,
        "min_machines": plan.least,
        "max_machines": plan.most,
        "slots_tools": slots,
        "environ": ours,
        "ladder": [{"provider": PROVIDER}],
    }
    provider = {"stop_s": drain_s + STOP_SPARE_S, "inherit": sorted({*node_environ} - ours.keys())}
    tables = {
        "scale": {"cluster": CLUSTER, "machine_ttl_s": 600.0},
        f"providers.{PROVIDER}": provider,
        f"pools.{plan.pool}.scale": policy,
    }
    head = "# Written by `mcpfleet up --autoscale` at each start; changes are lost.\n"
    text = head + "".join(f"\n[{name}]\n{_lines(table)}" for name, table in tables.items())
    write_text_private(state_dir / POOLS_FILE, text)
    return state_dir / POOLS_FILE


def _lines(table: Mapping[str, object]) -> str:
    return "".join(f"{name} = {_toml(value)}\n" for name, value in table.items())


def _toml(value: object) -> str:
    """A TOML value; its basic strings, numbers and arrays are written as JSON writes them. Source: TOML 1.0."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


class LocalMachines:
    """The machines of a fleet in this state directory, whoever ordered them."""

    def __init__(self, state_dir: Path, drain_s: float) -> None:
        self._folder = state_dir / CLOUD_DIR / PROVIDER
        self._stop_s = drain_s + STOP_SPARE_S

    async def end(self, hurry: asyncio.Event) -> list[str]:
        """Tell all of them to drain and end, and wait. Those that are left: not in time, or in a hurry."""
        until = time.monotonic() + self._stop_s
        while names := await self.ask():
            if hurry.is_set() or time.monotonic() > until:
                return names
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await hurry.wait()
            except TimeoutError:
                pass
        return []

    async def ask(self) -> list[str]:
        """Tell those that are there to end, however often it was said; their names."""
        if not self._folder.is_dir():
            return []
        provider = self._open()
        try:
            machines = await provider.machines(CLUSTER)
            for machine in machines:
                await provider.terminate(machine.id)
            return [machine.name for machine in machines]
        except FleetError:
            return []  # its folder is broken; what still runs is ended as an orphan
        finally:
            await provider.close()

    def _open(self) -> CloudProvider:
        from orchestrator.autoscaler.cloud.local_process import open_local_process
        from orchestrator.autoscaler.cloud.provider import ProviderConfig

        options = {"stop_s": self._stop_s}
        return open_local_process(ProviderConfig(PROVIDER, PROVIDER, options, state_dir=self._folder))

"""What a local fleet consists of, decided before anything is started."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.local.servers import Installed, discover, search_path
from tasks.errors import SettingsError

_OURS = re.compile(r"MCPFLEET_")
CLIENT_ONLY = frozenset({"MCPFLEET_URL", "MCPFLEET_TOKEN", "MCPFLEET_STATE_DIR", "MCPFLEET_JOIN_TOKEN"})
"""Of whoever typed the command; the children get their own."""
NODE_PREFIX = "MCPFLEET_NODE_"
NODES_MAX = 32


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node process. Either `servers_file` (the user's own) or `servers`."""

    name: str
    pool: str
    servers: tuple[Installed, ...] = ()
    servers_file: Path | None = None
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that differs between one local fleet and another."""

    state_dir: Path
    environ: Mapping[str, str]
    nodes: tuple[NodePlan, ...]
    port: int = 0
    with_flower: bool = True
    ephemeral: bool = False
    scratch: Path | None = None
    """Removed by the guard if whoever made it cannot."""
    orchestrator: Mapping[str, str] = field(default_factory=dict)
    """Further settings of the orchestrator, by variable."""

    @property
    def redis_url(self) -> str | None:
        """The one that is configured; None: a server of our own."""
        return self.environ.get("MCPFLEET_REDIS_URL") or None

    def base_environ(self) -> dict[str, str]:
        """For every child: the caller's, without anything of ours."""
        return {key: value for key, value in self.environ.items() if not _OURS.match(key)}

    def orchestrator_environ(self) -> dict[str, str]:
        """What the user set for the orchestrator, and what this plan sets."""
        ours = {
            key: value
            for key, value in self.environ.items()
            if _OURS.match(key) and key not in CLIENT_ONLY and not key.startswith(NODE_PREFIX)
        }
        return self.base_environ() | ours | dict(self.orchestrator)

    def node_environ(self) -> dict[str, str]:
        """What the user set for nodes."""
        ours = {key: value for key, value in self.environ.items() if key.startswith(NODE_PREFIX)}
        return self.base_environ() | ours


def plan_up(  # the options of `mcpfleet up`
    *,
    state_dir: Path,
    environ: Mapping[str, str],
    port: int,
    general: int,
    servers: Path | None,
    with_flower: bool,
    ephemeral: bool,
) -> Plan:
    """Two pools: `general` with `general` nodes, `builders` with one that can `build`.

    Raises:
        SettingsError: the servers file is not there.
    """
    if servers is not None and not servers.is_file():
        raise SettingsError(f"there is no file {servers}; give --servers a file in the mcpServers form")
    found = discover(search_path(environ.get("PATH", "")))
    return Plan(
        state_dir=state_dir,
        environ=environ,
        nodes=two_pools(found, general=general, servers_file=servers and servers.absolute()),
        port=port,
        with_flower=with_flower,
        ephemeral=ephemeral,
    )


def two_pools(
    found: Mapping[str, Installed], *, general: int, servers_file: Path | None = None
) -> tuple[NodePlan, ...]:
    """`general-1 … general-N` with what only reads, `builders-1` with git and the rest."""
    readers = tuple(found[name] for name in ("time", "fetch") if name in found)
    builders = tuple(server for name, server in found.items() if name != "fetch")
    plain = [NodePlan(f"general-{n}", "general", readers, servers_file) for n in range(1, general + 1)]
    builder = NodePlan("builders-1", "builders", builders, servers_file, ("build",))
    return (*plain, builder)

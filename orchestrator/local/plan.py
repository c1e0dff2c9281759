"""What a local fleet consists of, decided before anything is started."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.local.credentials import credentials
from orchestrator.local.machines import MachinesPlan
from orchestrator.local.servers import Installed, discover, search_path
from tasks.errors import SettingsError
from tasks.settings import BY_FILE

_OURS = re.compile(r"MCPFLEET_")
CLIENT_ONLY = frozenset(
    {"MCPFLEET_URL", "MCPFLEET_STATE_DIR"}
    | {f"MCPFLEET_{name}{end}" for name in ("TOKEN", "JOIN_TOKEN") for end in ("", BY_FILE)}
)
"""Of whoever typed the command; the children get their own."""
NODE_PREFIX, POOLS_FILE, TLS = "MCPFLEET_NODE_", "MCPFLEET_POOLS_FILE", "MCPFLEET_TLS"
OF_ALL = ("OTLP_ENDPOINT", "OTLP_HEADERS_FILE", "OTLP_CA_FILE", "OTLP_GZIP", "TRACE_RATIO", "LOG_OTLP")
"""What is set for the orchestrator of these holds for nodes too, unless they have their own."""
NODES_MAX = 32
GENERAL, GENERAL_MOST = 2, 4
"""Nodes of the pool `general`; and the most there may be where the load decides."""


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
    machines: MachinesPlan | None = None
    """A pool whose machines the autoscaler orders; its nodes are not in `nodes`."""

    @property
    def redis_url(self) -> str | None:
        """The one that is configured; None: a server of our own."""
        return self.environ.get("MCPFLEET_REDIS_URL") or None

    def base_environ(self, *, servers_file: Path | None = None) -> dict[str, str]:
        """For every child but the orchestrator: the caller's, without anything of ours and without cloud credentials.

        Args:
            servers_file: of a node: what it asks for as `${NAME}` is handed on, if the pools file does not name it.
        """
        pools_file = self.environ.get(POOLS_FILE) or self.orchestrator.get(POOLS_FILE)
        secret = credentials(self.environ, pools_file=pools_file, servers_file=servers_file)
        return {key: value for key, value in self._callers().items() if key not in secret}

    def orchestrator_environ(self) -> dict[str, str]:
        """What the user set for the orchestrator, and what this plan sets."""
        ours = {
            key: value
            for key, value in self.environ.items()
            if _OURS.match(key) and key not in CLIENT_ONLY and not key.startswith(NODE_PREFIX)
        }
        return self._callers() | ours | dict(self.orchestrator)

    def node_environ(self, servers_file: Path | None = None) -> dict[str, str]:
        """What the user set for nodes; see `base_environ`."""
        ours = {key: value for key, value in self.environ.items() if key.startswith(NODE_PREFIX)}
        of_all = {f"{NODE_PREFIX}{name}": self.environ.get(f"MCPFLEET_{name}") for name in OF_ALL}
        shared = {key: value for key, value in of_all.items() if value is not None}
        return self.base_environ(servers_file=servers_file) | shared | ours

    def _callers(self) -> dict[str, str]:
        return {key: value for key, value in self.environ.items() if not _OURS.match(key)}


def plan_up(  # the options of `mcpfleet up`
    *,
    state_dir: Path,
    environ: Mapping[str, str],
    port: int,
    general: int | None,
    servers: Path | None,
    with_flower: bool,
    ephemeral: bool,
    autoscale: bool = False,
) -> Plan:
    """Two pools: `general` with `general` nodes, `builders` with one that can `build`.

    With `autoscale`, `general` has one to so many, as the load wants.

    Raises:
        SettingsError: the servers file is not there, there are two pools files, or TLS is asked for.
    """
    _refuse_tls(environ)
    if autoscale and environ.get(POOLS_FILE):
        raise SettingsError(
            "--autoscale writes a pools file of its own, and MCPFLEET_POOLS_FILE names another; unset it, or give a "
            "pool a ladder there (docs/autoscaling.md) and leave --autoscale out"
        )
    if environ.get(POOLS_FILE):  # the orchestrator's own folder is another one
        environ = {**environ, POOLS_FILE: str(Path(environ[POOLS_FILE]).absolute())}
    if servers is not None and not servers.is_file():
        raise SettingsError(f"there is no file {servers}; give --servers a file in the mcpServers form")
    found, servers_file = discover(search_path(environ.get("PATH", ""))), servers and servers.absolute()
    machines = MachinesPlan("general", general or GENERAL_MOST, readers(found), servers_file) if autoscale else None
    return Plan(
        state_dir=state_dir,
        environ=environ,
        nodes=two_pools(found, general=0 if autoscale else general or GENERAL, servers_file=servers_file),
        machines=machines,
        port=port,
        with_flower=with_flower,
        ephemeral=ephemeral,
    )


def _refuse_tls(environ: Mapping[str, str]) -> None:
    if environ.get(TLS, "").lower() in {"1", "true", "yes", "on"}:
        raise SettingsError(
            f"{TLS} is set, and `mcpfleet up` serves this machine alone, over loopback and without TLS; unset it, or "
            "run `mcpfleet serve` and `mcpfleet-worker run` (docs/tls.md)"
        )


def two_pools(
    found: Mapping[str, Installed], *, general: int, servers_file: Path | None = None
) -> tuple[NodePlan, ...]:
    """`general-1 … general-N` with what only reads, `builders-1` with git and the rest."""
    builders = tuple(server for name, server in found.items() if name != "fetch")
    plain = [NodePlan(f"general-{n}", "general", readers(found), servers_file) for n in range(1, general + 1)]
    builder = NodePlan("builders-1", "builders", builders, servers_file, ("build",))
    return (*plain, builder)


def readers(found: Mapping[str, Installed]) -> tuple[Installed, ...]:
    """Servers that only read."""
    return tuple(found[name] for name in ("time", "fetch") if name in found)

"""`mcpfleet up, demo, doctor, serve, mcp, version`: what runs on this machine.

Everything heavy is imported where it is needed: `mcpfleet ps` must not pay for SQLAlchemy.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.desk import Desk, JsonFlag, desk_of
from orchestrator.cli.exits import Exit
from orchestrator.flower.settings import VARIABLES

if TYPE_CHECKING:
    from orchestrator.settings import OrchestratorSettings

DISTRIBUTION = "mcpfleet"
UNINSTALLED = "0+source"
NOT_OURS = ("MCPFLEET_NODE_", "MCPFLEET_URL", "MCPFLEET_STATE_DIR", *VARIABLES)
"""Settings of nodes, of Flower and of the command line, which the orchestrator leaves alone."""

PortOption = Annotated[
    int,
    typer.Option(
        "--port", min=0, max=65_535, help="Of the API and the MCP endpoint; 0 takes the last one, or a free one."
    ),
]
NodesOption = Annotated[
    int | None,
    typer.Option(
        "--nodes", min=1, max=32, help="Nodes of the pool general (2), or with --autoscale the most there may be (4)."
    ),
]
AutoscaleFlag = Annotated[
    bool, typer.Option("--autoscale", help="Nodes of the pool general come and go with the load: mcpfleet scale.")
]
ServersOption = Annotated[
    Path | None, typer.Option("--servers", metavar="FILE", help="MCP servers of the nodes, in the mcpServers form.")
]
FlowerFlag = Annotated[bool, typer.Option("--flower/--no-flower", help="Flower, behind a password, on loopback.")]
EphemeralFlag = Annotated[bool, typer.Option("--ephemeral", help="Forget everything at the end, the ledger too.")]
VerboseFlag = Annotated[bool, typer.Option("--verbose", "-v", help="Show the logs of all processes.")]
KeepFlag = Annotated[bool, typer.Option("--keep", help="Leave the fleet running until Ctrl-C.")]
FastFlag = Annotated[bool, typer.Option("--fast", help="No pauses for reading.")]


def up(
    ctx: typer.Context,
    *,
    port: PortOption = 0,
    general: NodesOption = None,
    autoscale: AutoscaleFlag = False,
    servers: ServersOption = None,
    flower: FlowerFlag = True,
    ephemeral: EphemeralFlag = False,
    verbose: VerboseFlag = False,
) -> int:
    """Run a whole fleet on this machine until Ctrl-C."""
    from orchestrator.cli.checkup_pools import read_whole
    from orchestrator.cli.ownership import require
    from orchestrator.cli.up import run_up
    from orchestrator.local.plan import plan_up

    require()
    desk = desk_of(ctx)
    plan = plan_up(
        state_dir=desk.settings.state_dir,
        environ=desk.settings.environ,
        port=port,
        general=general,
        servers=servers,
        with_flower=flower,
        ephemeral=ephemeral,
        autoscale=autoscale,
    )
    read_whole(desk.settings.environ, desk.settings.state_dir)  # before Redis and nodes are started for nothing
    return asyncio.run(run_up(plan, desk.screen, verbose=verbose))


def demo(ctx: typer.Context, keep: KeepFlag = False, fast: FastFlag = False, verbose: VerboseFlag = False) -> int:
    """Start a fleet, tell its story on real MCP servers, stop it."""
    from orchestrator.cli.demo.run import run_demo
    from orchestrator.cli.ownership import require

    require()
    desk = desk_of(ctx)
    return run_demo(desk.settings, desk.screen, keep=keep, fast=fast, verbose=verbose)


def doctor(ctx: typer.Context, servers: ServersOption = None, as_json: JsonFlag = False) -> int:
    """Check this installation and the fleet, and say how to mend what is wrong."""
    from orchestrator.cli.checkup import examine
    from orchestrator.cli.findings import show_findings

    desk = desk_of(ctx)
    return show_findings(desk.screen, examine(desk, servers), as_json=as_json)


def serve(ctx: typer.Context) -> int:
    """Run the orchestrator process; settings come from MCPFLEET_* variables."""
    from orchestrator.bootstrap import run
    from orchestrator.cli.ownership import require

    require()
    run(orchestrator_settings(desk_of(ctx)))
    return Exit.OK


def mcp(ctx: typer.Context) -> int:
    """Be the fleet as one MCP server on standard input and output."""
    from orchestrator.front.stdio import serve as serve_stdio

    target = desk_of(ctx).target()
    asyncio.run(serve_stdio(target.url, target.token))
    return Exit.OK


def version(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Print the version."""
    desk = desk_of(ctx)
    if as_json:
        desk.screen.json({"mcpfleet": our_version(), "python": platform.python_version()})
    else:
        desk.screen.line(f"mcpfleet {our_version()} (Python {platform.python_version()})")


def orchestrator_settings(desk: Desk, *, without: Sequence[str] = ()) -> OrchestratorSettings:
    """The orchestrator's own, for commands that run where it runs.

    Args:
        desk: with the environment.
        without: required ones that this command does not need.

    Raises:
        SettingsError: one is wrong or absent.
    """
    from orchestrator.settings import OrchestratorSettings
    from tasks.settings import read

    environ = desk.settings.environ
    unset = {name: "-" for name in without if f"MCPFLEET_{name.upper()}" not in environ}
    return read(OrchestratorSettings, "MCPFLEET_", environ, excluding=NOT_OURS, given=unset)


def our_version() -> str:
    """Of the installed distribution; a source tree that is not installed says so."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return UNINSTALLED

"""`mcpfleet-worker`: run a node.

Options beat `MCPFLEET_NODE_*` variables, which beat defaults. Exit codes are `worker.process.Exit`.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from mcp_types import Implementation
from starlette.routing import BaseRoute

from tasks import telemetry
from tasks.clock import SystemClock
from tasks.errors import FleetError
from tasks.node import Visibility
from tasks.settings import read
from worker.bootstrap import Servers, our_version
from worker.process import Exit, NodeProcess
from worker.settings import PREFIX, NodeSettings
from worker.upstreams.servers_file import load_servers, parse_servers
from worker.upstreams.upstreams import Upstreams

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """A worker node of mcpfleet."""


@app.command()
def run(  # noqa: PLR0917 - the options of a node
    name: Annotated[str | None, typer.Option(help="This node's name; the host's when absent.")] = None,
    pool: Annotated[str | None, typer.Option(help="The pool it joins.")] = None,
    servers: Annotated[
        Path | None, typer.Option(help="Which MCP servers it runs: a file in the mcpServers form.")
    ] = None,
    slots_tools: Annotated[int | None, typer.Option(help="Short calls at once.")] = None,
    slots_agents: Annotated[int | None, typer.Option(help="Long agent runs at once.")] = None,
    capability: Annotated[list[str] | None, typer.Option(help="What it offers beside its servers; repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value, for people and filters; repeatable.")] = None,
    location: Annotated[str | None, typer.Option(help="Region or room.")] = None,
    visibility: Annotated[Visibility | None, typer.Option(help="Who may be placed here.")] = None,
    orchestrator_url: Annotated[str | None, typer.Option(help="Where to join.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Journal and kept results.")] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Of its MCP server, /health, /metrics; 0: any free one.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Join the fleet and run what it sends, until SIGTERM or Ctrl-C."""
    given: dict[str, object] = {
        "name": name,
        "pool": pool,
        "servers": servers,
        "slots_tools": slots_tools,
        "slots_agents": slots_agents,
        "capabilities": frozenset(capability) if capability else None,
        "labels": _labels(label) if label else None,
        "location": location,
        "visibility": visibility,
        "orchestrator_url": orchestrator_url,
        "state_dir": state_dir,
        "http_port": http_port,
        "log_level": log_level,
    }
    try:
        settings = read(NodeSettings, PREFIX, os.environ, given=given)
        process = _assemble(settings)
    except FleetError as error:
        print(f"mcpfleet-worker: {error.message}", file=sys.stderr)
        raise typer.Exit(Exit.BAD_START) from None
    raise typer.Exit(process.run())


def _assemble(settings: NodeSettings) -> NodeProcess:
    """Everything that is chosen before the loop runs."""
    telemetry.configure(f"node {settings.name}", level=settings.log_level)
    config = (
        load_servers(settings.servers, os.environ)
        if settings.servers
        else parse_servers('{"mcpServers": {}}', source="no servers file", environ=os.environ)
    )
    upstreams = Upstreams(
        config,
        clock=SystemClock(),
        draw=random.random,
        client_info=Implementation(name="mcpfleet-worker", version=our_version()),
    )
    return NodeProcess(settings, upstreams, _mcp_side, SystemClock())


def _mcp_side(_servers: Servers) -> tuple[Sequence[BaseRoute], AbstractAsyncContextManager[None]]:
    return (), nullcontext()


@app.command()
def version() -> None:
    """Print the version."""
    print(our_version())


def main() -> None:
    """The console script."""
    app()


def _labels(pairs: list[str]) -> dict[str, str]:
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        print(f"mcpfleet-worker: --label {wrong[0]!r} is not key=value", file=sys.stderr)
        raise typer.Exit(Exit.BAD_START)
    return dict(pair.partition("=")[::2] for pair in pairs)


if __name__ == "__main__":
    main()

"""`mcpfleet-worker`: run a node.

Options beat `MCPFLEET_NODE_*` variables, which beat defaults. Exit codes are `worker.process.Exit`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from mcp_types import Implementation

from tasks import telemetry
from tasks.clock import Clock, SystemClock
from tasks.errors import FleetError
from tasks.ids import new_id
from tasks.node import Visibility
from tasks.otlp import Otlp
from tasks.settings import read, variable_of
from worker.fleet_clock import FleetClock
from worker.machine import our_version
from worker.mcpserver import LOOPBACK_HOSTS, NodeMcp
from worker.process import Exit, McpSide, NodeProcess
from worker.secrets import NodeSecrets, no_cores
from worker.settings import PREFIX, NodeSettings
from worker.systemd import Supervisor, supervisor_of
from worker.telemetry import SERVICE, begin_telemetry
from worker.upstreams.servers_file import load_servers, parse_servers
from worker.upstreams.traced import CallTracer
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
        otlp = begin_telemetry(settings)
        process = _assemble(settings, supervisor_of(os.environ, os.getpid()), otlp)
    except FleetError as error:
        print(f"mcpfleet-worker: {error.message}", file=sys.stderr)
        raise typer.Exit(Exit.BAD_START) from None
    status = process.run()
    if otlp is not None:
        otlp.close()
    raise typer.Exit(status)


@app.command()
def mcp(
    servers: Annotated[Path | None, typer.Option(help="Its MCP servers: a file in the mcpServers form.")] = None,
) -> None:
    """Serve a node's tools as one MCP server on stdin and stdout, without joining a fleet."""
    telemetry.configure("node mcp", service=SERVICE, level="warning")
    named = servers or os.environ.get(variable_of("servers", PREFIX))
    try:
        with tempfile.TemporaryDirectory() as state:
            upstreams, _ = _upstreams(Path(named) if named else None, SystemClock(), Path(state))
            asyncio.run(_serve_stdio(upstreams))
    except FleetError as error:
        print(f"mcpfleet-worker: {error.message}", file=sys.stderr)
        raise typer.Exit(Exit.BAD_START) from None


@app.command()
def version() -> None:
    """Print the version."""
    print(our_version())


def main() -> None:
    """The console script."""
    app()


def _assemble(settings: NodeSettings, service: Supervisor, otlp: Otlp | None) -> NodeProcess:
    """Everything that is chosen before the loop runs."""
    token = settings.http_token.get_secret_value()
    hosts = (*LOOPBACK_HOSTS, f"{settings.http_host}:*", urlsplit(settings.url).netloc)

    def mcp_side() -> McpSide:
        if not token:
            return (), nullcontext()
        return _node_mcp(upstreams).http(token=token, allowed_hosts=hosts)

    clock = FleetClock(SystemClock())
    upstreams, secrets = _upstreams(settings.servers, clock, settings.state_dir / settings.name)
    upstreams.tracer = None if otlp is None else CallTracer(otlp, clock)
    return NodeProcess(settings, upstreams, mcp_side, clock, service, secrets=secrets, otlp=otlp)


def _upstreams(servers: Path | None, clock: Clock, state: Path) -> tuple[Upstreams, NodeSecrets]:
    if servers is not None:
        config = load_servers(servers, os.environ)
    else:
        config = parse_servers('{"mcpServers": {}}', source="no servers file", environ=os.environ)
    client = Implementation(name="mcpfleet-worker", version=our_version())
    secrets = NodeSecrets()
    upstreams = Upstreams(config, clock=clock, draw=random.random, client_info=client, secrets=secrets)
    secrets.restart = upstreams.restart
    if config.names_secrets():
        no_cores()
    if config.sidecars:
        from worker.sidecars.assemble import agent_server, agent_servers  # half a second that only they spend
        from worker.sidecars.lent import lender

        make = partial(agent_server, state=state, projects=config.projects, clock=clock, policy_of=config.policy_of)
        make = partial(make, lend=lender(upstreams, our_version()), hold=secrets.hold)
        agent_servers(config.sidecars, upstreams.add, make)
    return upstreams, secrets


def _node_mcp(upstreams: Upstreams, ready: Callable[[], Awaitable[None]] | None = None) -> NodeMcp:
    name, version = "mcpfleet-node", our_version()
    if ready is None:
        return NodeMcp(upstreams, name=name, version=version, new_id=new_id)
    return NodeMcp(upstreams, name=name, version=version, new_id=new_id, ready=ready)


async def _serve_stdio(upstreams: Upstreams) -> None:
    """Answers at once; a listing waits for the servers."""
    starting = asyncio.create_task(upstreams.start())

    async def ready() -> None:
        await asyncio.shield(starting)

    try:
        await _node_mcp(upstreams, ready).serve_stdio()
    finally:
        starting.cancel()
        await upstreams.close()


def _labels(pairs: list[str]) -> dict[str, str]:
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        print(f"mcpfleet-worker: --label {wrong[0]!r} is not key=value", file=sys.stderr)
        raise typer.Exit(Exit.BAD_START)
    return dict(pair.partition("=")[::2] for pair in pairs)


if __name__ == "__main__":
    main()

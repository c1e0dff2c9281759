"""Our own sides: the whole path, as real processes. Orchestrator on SQLite, one node, the shared Redis.

Every call is durable before it is accepted, routed with reasons, fenced, authenticated, journaled by
the node, and settled exactly once; Flower is fed unless a side says otherwise.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from benchmarks.processes import ASK_EVERY_S, ROOT, STARTS_WITHIN_S, Broker, Client, Crew, free_port, python, running
from benchmarks.sides import Running, Side, Start
from orchestrator.secrets.keyfile import new_key_file

SLOTS = 64
"""More than the closed loop has callers: the node is not what limits it."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet that is up, without a client yet."""

    url: str
    token: str
    join_token: str
    orchestrator: Popen[bytes]
    folder: Path
    broker: Broker

    def client_env(self) -> dict[str, str]:
        """For benchmarks/fleet_client.py."""
        return {"BENCH_FLEET_URL": self.url, "BENCH_FLEET_TOKEN": self.token, "PYTHONPATH": str(ROOT)}

    def ask(self, path: str, form: object | None = None, *, token: str | None = None) -> dict[str, object]:
        """One request to the orchestrator.

        Raises:
            OSError: it was refused.
        """
        data = None if form is None else json.dumps(form).encode()
        headers = {"Authorization": f"Bearer {token or self.token}", "Content-Type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(self.url + path, data=data, headers=headers), timeout=60
        ) as answer:
            found: dict[str, object] = json.loads(answer.read() or b"{}")
            return found

    def wait_for_tool(self, tool: str) -> None:
        """Until a node that offers it has joined.

        Raises:
            TimeoutError: none did.
        """
        until = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < until:
            try:
                self.ask(f"/v1/tools/{tool}")
            except OSError:
                time.sleep(ASK_EVERY_S)
            else:
                return
        raise TimeoutError(f"no node offered {tool} within {STARTS_WITHIN_S} s")


@contextmanager
def fleet(broker: Broker, logs: Path, *, settings: Mapping[str, str] | None = None) -> Iterator[Fleet]:
    """An orchestrator process on a SQLite ledger of its own."""
    token, join_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="mcpfleet-bench-") as name:
        folder = Path(name)
        ready = folder / "ready"
        env = {
            "PYTHONPATH": str(ROOT),
            "MCPFLEET_DATABASE_URL": f"sqlite:///{folder}/ledger.db",
            "MCPFLEET_REDIS_URL": broker.url,
            "MCPFLEET_BLOB_DIR": str(folder / "blobs"),
            "MCPFLEET_PORT": "0",
            "MCPFLEET_TOKEN": token,
            "MCPFLEET_JOIN_TOKEN": join_token,
            "MCPFLEET_READY_FILE": str(ready),
            "MCPFLEET_LOG_LEVEL": "WARNING",
        } | dict(settings or {})
        arguments = [python(), "-m", "orchestrator.cli.main", "serve"]
        with running(arguments, env=env, log=logs / "orchestrator.log") as process:
            yield Fleet(_url_in(ready, process), token, join_token, process, folder, broker)


@contextmanager
def node(
    up: Fleet, logs: Path, *, name: str = "n1", options: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[Popen[bytes]]:
    """A worker process of that fleet."""
    env = {
        "PYTHONPATH": str(ROOT),
        "MCPFLEET_NODE_ORCHESTRATOR_URL": up.url,
        "MCPFLEET_NODE_JOIN_TOKEN": up.join_token,
        "MCPFLEET_NODE_STATE_DIR": str(up.folder / "nodes"),
        "MCPFLEET_NODE_LOG_LEVEL": "warning",
    } | dict(settings or {})
    arguments = [python(), "-m", "worker.cli", "run", "--name", name, "--pool", "bench", "--slots-tools", str(SLOTS)]
    with running([*arguments, *options], env=env, log=logs / f"node-{name}.log") as process:
        yield process


@contextmanager
def client(up: Fleet, logs: Path, door: str, tool: str, arguments: object) -> Iterator[tuple[Client, Popen[bytes]]]:
    """A client process at that door."""
    command = [python(), "-m", "benchmarks.fleet_client", door, tool, json.dumps(arguments)]
    with running(command, env=up.client_env(), log=logs / f"fleet_client_{door}.log", is_client=True) as process:
        yield Client(process), process


def through(door: str, *, settings: Mapping[str, str] | None = None) -> Start:
    """The in-process echo tool, called through one door."""

    @contextmanager
    def start(broker: Broker, logs: Path) -> Iterator[Running]:
        with ExitStack() as stack:
            up = stack.enter_context(fleet(broker, logs, settings=settings))
            worker = stack.enter_context(node(up, logs))
            up.wait_for_tool("probe.echo")
            orders, process = stack.enter_context(client(up, logs, door, "probe.echo", {}))
            parts = {"orchestrator": [up.orchestrator], "worker": [worker], "client": [process]}
            yield Running(Crew(parts, broker), orders)

    return start


GUARDED = """@id("calls") permit (principal, action, resource);
@id("outside-reads") forbid (principal, action == Action::"call", resource)
when { context.trust < 50 && !resource.readOnly };
"""
RATE = '[[rate]]\nname = "everybody"\nper = "principal+tool"\ncalls_per_s = 100000\nburst = 100000\n'
QUOTA = '[[quota]]\nname = "ours"\ntenant = "default"\ncalls_per_day = 100000000\n'


@contextmanager
def guarded(broker: Broker, logs: Path) -> Iterator[Running]:
    """Policies, rates and quotas asked for each call; deliveries, and what the ledger stores, sealed. Without TLS."""
    with tempfile.TemporaryDirectory(prefix="mcpfleet-bench-guarded-") as name:
        folder = Path(name)
        (folder / "policy").mkdir()
        (folder / "policy/all.cedar").write_text(GUARDED)
        (folder / "policy/limits.toml").write_text(RATE + QUOTA)
        new_key_file(folder / "keys", kid="bench")
        settings = {
            "MCPFLEET_POLICY_DIR": str(folder / "policy"),
            "MCPFLEET_KEY_FILE": str(folder / "keys"),
            "MCPFLEET_SEAL_PAYLOADS": "true",
        }
        with through("http", settings=settings)(broker, logs) as running:
            yield running


@contextmanager
def observed(broker: Broker, logs: Path) -> Iterator[Running]:
    """Every call traced, logs at info and spans sent to a collector, /metrics scraped. The client makes no spans."""
    port = free_port()
    told = {"OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "TRACE_RATIO": "1", "LOG_OTLP": "true", "LOG_LEVEL": "info"}
    ours, nodes = (
        {f"{prefix}{name}": text for name, text in told.items()} for prefix in ("MCPFLEET_", "MCPFLEET_NODE_")
    )
    with ExitStack() as stack:
        up = stack.enter_context(fleet(broker, logs, settings=ours))
        sink = [python(), "-m", "benchmarks.sink", str(port), up.url, up.token]
        stack.enter_context(running(sink, env={"PYTHONPATH": str(ROOT)}, log=logs / "sink.log"))
        worker = stack.enter_context(node(up, logs, settings=nodes))
        up.wait_for_tool("probe.echo")
        orders, process = stack.enter_context(client(up, logs, "http", "probe.echo", {}))
        parts = {"orchestrator": [up.orchestrator], "worker": [worker], "client": [process]}
        yield Running(Crew(parts, broker), orders)


@contextmanager
def real_upstream(broker: Broker, logs: Path) -> Iterator[Running]:
    """The same path to a real MCP server over stdio, which we did not write: mcp-server-time."""
    program = next((p for p in _programs("mcp-server-time") if p.exists()), None)
    if program is None:
        raise OSError("mcp-server-time is not installed: make servers")
    with ExitStack() as stack:
        up = stack.enter_context(fleet(broker, logs))
        servers = up.folder / "servers.json"
        servers.write_text(json.dumps({"mcpServers": {"time": {"command": str(program)}}}))
        worker = stack.enter_context(node(up, logs, options=["--servers", str(servers)]))
        up.wait_for_tool("time.get_current_time")
        orders, process = stack.enter_context(client(up, logs, "http", "time.get_current_time", {"timezone": "UTC"}))
        parts = {"orchestrator": [up.orchestrator], "worker+server": [worker], "client": [process]}
        yield Running(Crew(parts, broker), orders)


def _programs(name: str) -> list[Path]:
    folders = [ROOT / ".cache/servers/bin", Path(python()).parent, *map(Path, os.environ["PATH"].split(os.pathsep))]
    return [folder / name for folder in folders]


def _url_in(ready: Path, process: Popen[bytes]) -> str:
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        if ready.exists():
            return ready.read_text().strip()
        time.sleep(ASK_EVERY_S)
    raise TimeoutError(f"the orchestrator did not open its doors (status {process.poll()}); see orchestrator.log")


OURS = (
    Side("mcpfleet, HTTP", "the Python client over HTTP, in-process echo tool, one node", through("http")),
    Side("mcpfleet, MCP", "the same through the MCP endpoint, with the official SDK's client", through("mcp")),
    Side(
        "mcpfleet, no Flower",
        "over HTTP, without feeding Flower: what the feed costs",
        through("http", settings={"MCPFLEET_FLOWER_FEED": "false"}),
    ),
    Side(
        "mcpfleet, HTTP, bare",
        "over HTTP, with deliveries authenticated but not sealed",
        through("http", settings={"MCPFLEET_SEAL_DELIVERIES": "false"}),
    ),
    Side(
        "mcpfleet, HTTP, guarded",
        "over HTTP, with policies, rates and quotas, and with deliveries and the ledger's payloads sealed",
        guarded,
    ),
    Side(
        "mcpfleet, HTTP, observed",
        "over HTTP, every call traced, spans and logs (at info) sent by OTLP, /metrics scraped every 5 s",
        observed,
    ),
    Side(
        "mcpfleet, real server",
        "over HTTP to mcp-server-time over stdio, its process counted with the node",
        real_upstream,
    ),
)

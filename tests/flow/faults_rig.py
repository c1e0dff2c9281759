"""Real faults for a fleet that a real Prometheus scrapes: what hangs, dies, fills up, is refused or runs wrong.

Every one is done to a process, a disk, a clock or a key; no metric is faked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from orchestrator.autoscaler.cloud.local_process import open_local_process
from orchestrator.autoscaler.cloud.provider import Order, ProviderConfig
from orchestrator.testing.local import Local, until
from orchestrator.testing.postgres import Cluster
from tasks.testing.wrong_clock import set_ahead
from tests.conftest import ROOT, end, free_port
from tests.flow.prometheus_rig import Exporter, Prometheus
from worker.testing.chat_double import ChatDouble, Step, Trouble
from worker.testing.upstreams_kit import served

WITHIN_S = 150.0
GATED = Path(__file__).with_name("gated_server.py")
CLUSTER, PROVIDER, POOL, NODE = "hurt", "local-process", "elastic", "hurt-1"
MARK, LEAKED = "_MCPFLEET_MACHINE", "nobodys-1"
PRICE_EUR_H, BUDGET_EUR_H = 0.10, 0.105
"""One machine is nearly all that may be had."""
POOLS = f"""
[scale]
cluster = "{CLUSTER}"
budget_eur_h = 1.0

[providers.{PROVIDER}]
inherit = ["PATH", "HOME"]
stop_s = 30.0
price_eur_h = {PRICE_EUR_H}

[pools.{POOL}.scale]
min_machines = 0
max_machines = 4
budget_eur_h = {BUDGET_EUR_H}
target_wait_s = 0.5
catch_up_s = 5.0
settle_s = 5.0
idle_to_zero_s = 5.0
boot_s = 5.0
boot_limit_s = 180.0
slots_tools = 1
use_season = false
environ = {{ MCPFLEET_NODE_SLOTS_TOOLS = "1", MCPFLEET_NODE_DRAIN_S = "5" }}
ladder = [{{ provider = "{PROVIDER}" }}]

[pools.{POOL}.scale.triggers]
cpu = 1.0
memory = 1.0
"""


class Scene:
    """A fleet, and the Prometheus that scrapes it."""

    def __init__(self, fleet: Local, prometheus: Prometheus) -> None:
        self.fleet, self.prometheus = fleet, prometheus
        self.http = httpx.Client(
            base_url=fleet.url, headers={"Authorization": f"Bearer {fleet.token}"}, timeout=60, trust_env=False
        )

    def call(self, arguments: dict[str, Any], wait_s: float = 10.0, **more: object) -> httpx.Response:
        """One call of a tool."""
        body = {"tool": "time.get_current_time", "arguments": arguments, **more}
        return self.http.post(f"/v1/invocations?wait={wait_s:g}", json=body)

    def pause(self, *pools: str, is_paused: bool) -> None:
        """These pools."""
        for pool in pools:
            body = {"kind": "pool", "name": pool, "is_paused": is_paused}
            self.http.post("/v1/pauses", json=body).raise_for_status()

    def nodes(self) -> list[str]:
        """All that are known."""
        return [node["name"] for node in self.http.get("/v1/nodes").json()["items"]]

    def fires(self, alert: str, within_s: float = WITHIN_S) -> None:
        """It does, in time; and its words are whole."""
        until(lambda: alert in self.prometheus.firing(), within_s, f"{alert} fires")
        words = self.prometheus.firing().get(alert, {"annotations": {}})["annotations"]
        assert "error expanding" not in str(words)

    def resolves(self, alert: str, within_s: float = WITHIN_S) -> None:
        """It is over, in time."""
        until(lambda: alert not in self.prometheus.firing(), within_s, f"{alert} resolves")

    def burning(self, objective: str) -> set[str]:
        """How fast, of those alerts on this objective that fire."""
        found = self.prometheus.asked(
            f'ALERTS{{alertname="ObjectiveBurn",alertstate="firing",objective="{objective}"}}'
        )
        return {one["metric"]["factor"] for one in found}


@contextmanager
def frozen(*processes: psutil.Process) -> Iterator[None]:
    """Alive, and not a word from them: what a hung machine looks like."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@dataclass
class SickNode:
    """A node of the fleet with a clock that can be set, a server that can be killed, and an agent with a key."""

    fleet: Local
    folder: Path
    model_url: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """With eight times the slots of another: it is given much to lose."""
        self.folder.mkdir(exist_ok=True)
        self.set_clock(0.0)
        self.key("good")
        agent = {
            "kind": "openai_chat",
            "url": self.model_url,
            "model": "glm-5",
            "key_file": str(self.folder / "key"),
            "prices": {"glm-5": {"input": 1.0, "output": 3.2}},
        }
        self.script.write_text(GATED.read_text(encoding="utf-8"), encoding="utf-8")
        gated = {"command": sys.executable, "args": [str(self.script), str(self.folder)]}
        servers = self.folder / "servers.json"
        servers.write_text(json.dumps({"mcpServers": {"gated": gated}, "mcpfleet": {"sidecars": {"glm": agent}}}))
        words = ("run", "--name", NODE, "--pool", "hurt", "--servers", str(servers))
        command = [sys.executable, "-P", "-m", "tasks.testing.wrong_clock", str(self.clock), "worker.cli", *words]
        ours = {
            "MCPFLEET_NODE_ORCHESTRATOR_URL": self.fleet.url,
            "MCPFLEET_NODE_JOIN_TOKEN": self.fleet.file.join_token,
            "MCPFLEET_NODE_STATE_DIR": str(self.folder / "state"),
            "MCPFLEET_NODE_SLOTS_TOOLS": "64",
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=inherited | ours, cwd=ROOT, stdout=log, stderr=log)

    def stop(self) -> None:
        """And what it had started."""
        if self.process is not None:
            end(self.process)

    @property
    def clock(self) -> Path:
        """How far it is ahead."""
        return self.folder / "ahead"

    @property
    def script(self) -> Path:
        """The server's program."""
        return self.folder / "gated.py"

    def set_clock(self, ahead_s: float) -> None:
        """As an operator with `date -s`, for this process."""
        set_ahead(self.clock, ahead_s)

    def key(self, word: str) -> None:
        """What its provider is shown."""
        path = self.folder / "key"
        path.touch(mode=0o600)
        path.write_text(f"not-a-secret-{word}")

    def server(self) -> psutil.Process | None:
        """Its MCP server, if that runs."""
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        return next((one for one in family if str(self.script) in _words(one)), None)

    def marks(self) -> int:
        """How many calls its server has begun."""
        path = self.folder / "marks"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def open(self, gate: str) -> None:
        """Calls that wait there end."""
        (self.folder / gate).touch()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Model:
    """A provider on a loopback port, on a thread of its own."""

    def __init__(self) -> None:
        self.double = ChatDouble([Step("well")])
        self.url = ""
        self._stop: Callable[[], object] = lambda: None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def start(self) -> None:
        """Until it answers."""
        self._thread.start()
        assert self._is_up.wait(WITHIN_S)

    def refuse(self, *, is_refusing: bool) -> None:
        """Whatever key it is shown."""
        self.double.always = Trouble(status=401) if is_refusing else None

    def stop(self) -> None:
        """And wait."""
        self._stop()
        self._thread.join(WITHIN_S)

    async def _serve(self) -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(over.set)
        async with served(self.double.app) as port:
            self.url = f"http://127.0.0.1:{port}/v1"
            self._is_up.set()
            await over.wait()


@dataclass
class Machines:
    """The elastic pool's: processes on this host."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, str]:
        """Of the orchestrator."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "pools.toml").write_text(POOLS)
        return {
            "MCPFLEET_POOLS_FILE": str(self.folder / "pools.toml"),
            "MCPFLEET_CLOUD_DIR": str(self.folder / "cloud"),
        }

    def leak(self) -> None:
        """One under the fleet's tag that it did not order: as after a restored ledger."""
        options = {"command": [sys.executable, "-c", "import signal; signal.pause()"]}
        config = ProviderConfig(PROVIDER, PROVIDER, options, self.folder / "cloud" / PROVIDER, dict(os.environ))
        asyncio.run(self._order(config))

    async def _order(self, config: ProviderConfig) -> None:
        provider = open_local_process(config)
        try:
            await provider.create(Order("nobodys", LEAKED, CLUSTER, POOL, expires_at=4e9))
        finally:
            await provider.close()

    def joined(self, scene: Scene) -> list[str]:
        """Their nodes that take calls."""
        items = scene.http.get("/v1/nodes").json()["items"]
        return [node["name"] for node in items if node["pool"] == POOL and node["state"] == "active"]

    def processes(self) -> list[psutil.Process]:
        """Of all that were ordered; not the one that was not."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                home = process.environ().get(MARK, "")
                if home.startswith(str(self.folder)) and not home.endswith(LEAKED):
                    found.append(process)
        return found

    def kill(self) -> None:
        """As a host that loses its power."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def clear(self) -> None:
        """Whatever is left."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK, "").startswith(str(self.folder)):
                    process.kill()


@contextmanager
def exporter_of(mountpoint: Path, folder: Path) -> Iterator[Exporter]:
    """A real node exporter."""
    port = free_port()
    command = ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults"]
    with (folder / "exporter.log").open("wb") as log:
        process = subprocess.Popen([*command, "--collector.filesystem"], stdout=log, stderr=log)
    try:
        yield Exporter(f"127.0.0.1:{port}", str(mountpoint))
    finally:
        end(process)


def postgres_processes(cluster: Cluster) -> Sequence[psutil.Process]:
    """The server, first, and all of its own."""
    pid = int((cluster.folder / "cluster/postmaster.pid").read_text().split()[0])
    server = psutil.Process(pid)
    return [server, *server.children(recursive=True)]


def redis_processes(fleet: Local) -> list[psutil.Process]:
    """The fleet's own."""
    found = [one for one in fleet.family() if one.name().startswith(("redis-server", "valkey"))]
    assert found, [one.cmdline() for one in fleet.family()]
    return found


def orchestrator_of(fleet: Local) -> psutil.Process:
    """Its process."""
    return fleet.child("orchestrator.cli.main", "serve")

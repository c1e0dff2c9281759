"""Load makes a second machine join and serve while the orchestrator is killed; without load one machine goes.

The machines are processes of the local-process cloud, ordered by a real orchestrator and kept over its death.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from orchestrator.local.machines import CLUSTER, PROVIDER
from orchestrator.testing.local import gone

WITHIN_S = 240.0
"""A window of a minute has to be watched before anything is let go, and this machine may be busy."""
ASK_EVERY_S = 0.2
CALLS = 40
"""A minute of work for one machine: longer than a second one takes to boot on a host that is busy."""
SLOTS = 2
MARK = "_MCPFLEET_MACHINE"
POOLS = f"""
[scale]
cluster = "{CLUSTER}"

[providers.{PROVIDER}]
inherit = ["PATH", "HOME"]
stop_s = 30.0

[pools.elastic.scale]
min_machines = 1
max_machines = 2
target_wait_s = 0.5
catch_up_s = 5.0
settle_s = 5.0
idle_to_zero_s = 5.0
boot_s = 5.0
boot_limit_s = 180.0
slots_tools = {SLOTS}
use_season = false
environ = {{ MCPFLEET_NODE_SLOTS_TOOLS = "{SLOTS}", MCPFLEET_NODE_DRAIN_S = "5" }}
ladder = [{{ provider = "{PROVIDER}" }}]

[pools.elastic.scale.triggers]
cpu = 1.0
memory = 1.0
"""
"""Whoever runs other tests on this host meanwhile keeps no machine."""
pytestmark = pytest.mark.timeout(900)


@dataclass
class Elastic:
    """An orchestrator that sizes one pool; its machines are children of nobody."""

    folder: Path
    redis_url: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """On the same ledger and, the second time, the same port."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        (self.folder / "pools.toml").write_text(POOLS)
        ours = {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")}
        settings = {
            "MCPFLEET_DATABASE_URL": f"sqlite:///{self.folder / 'ledger.db'}",
            "MCPFLEET_REDIS_URL": self.redis_url,
            "MCPFLEET_BLOB_DIR": str(self.folder / "blobs"),
            "MCPFLEET_CLOUD_DIR": str(self.folder / "cloud"),
            "MCPFLEET_POOLS_FILE": str(self.folder / "pools.toml"),
            "MCPFLEET_TOKEN": self.token,
            "MCPFLEET_JOIN_TOKEN": secrets.token_urlsafe(16),
            "MCPFLEET_PORT": str(self.port),
            "MCPFLEET_READY_FILE": str(ready),
            "MCPFLEET_LEASE_TTL_S": "60",
        }
        command = [sys.executable, "-m", "orchestrator.cli.main", "serve"]
        with (self.folder / "orchestrator.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=ours | settings, cwd=self.folder, stdout=log, stderr=log)
        self.until(ready.exists, "the orchestrator is up")
        self.port = int(ready.read_text().strip().rsplit(":", 1)[1])

    def kill(self) -> None:
        """Without a word."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, **query: Any) -> dict[str, Any]:
        """One answer."""
        head = {"Authorization": f"Bearer {self.token}"}
        url = f"http://127.0.0.1:{self.port}{path}"
        return dict(httpx.request(method, url, params=query, json=body, headers=head, timeout=60).json())

    def sleep(self, seconds: float) -> str:
        """A call of so long; its id."""
        body = {"tool": "probe.sleep", "arguments": {"seconds": seconds, "steps": 20}, "pool": "elastic"}
        return str(self.ask("POST", "/v1/invocations", body)["id"])

    def call(self, name: str) -> dict[str, Any]:
        """As it stands."""
        return self.ask("GET", f"/v1/invocations/{name}")

    def machines(self, *states: str) -> dict[str, str]:
        """Claim by claim, its state; of these states only."""
        found = self.ask("GET", "/v1/scale/claims")["items"]
        return {one["node"]: one["state"] for one in found if not states or one["state"] in states}

    def nodes(self) -> set[str]:
        """Joined, in whatever state."""
        return {one["name"] for one in self.ask("GET", "/v1/nodes")["items"]}

    def processes(self) -> dict[psutil.Process, str]:
        """Of its machines, with the machine's folder: read once, for the process may be gone in a moment."""
        found = {}
        for process in psutil.process_iter():
            try:
                folder = process.environ().get(MARK, "")
            except psutil.Error:
                continue
            if folder.startswith(str(self.folder)):
                found[process] = folder
        return found

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Poll, bounded."""
        deadline = time.monotonic() + WITHIN_S
        while not holds():
            has_died = self.process is not None and self.process.poll() is not None
            if has_died or time.monotonic() > deadline:
                log = (self.folder / "orchestrator.log").read_text()[-4000:]
                pytest.fail(f"not in {WITHIN_S:g} s: {what}\n{log}", pytrace=False)
            time.sleep(ASK_EVERY_S)


@pytest.fixture
def elastic(tmp_path: Path, redis_url: str) -> Iterator[Elastic]:
    """Started; it and its machines are ended whatever happens."""
    fleet = Elastic(tmp_path, redis_url)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.kill()
        left = fleet.processes()
        for process in left:
            process.kill()
        gone(list(left))


def test_machines_come_with_the_load_and_go_with_it_and_a_killed_orchestrator_keeps_them(elastic: Elastic) -> None:
    """Every call runs once, on the first machine or the second; the one that is let go is never the busy one."""
    fleet = elastic
    fleet.until(lambda: len(fleet.machines("ready")) == 1, "a pool nobody has seen gets its first machine")
    calls = [fleet.sleep(3.0) for _ in range(CALLS)]
    fleet.until(lambda: len(fleet.machines("ready")) == 2, "a second machine joins")
    had = fleet.machines("ready")
    fleet.until(lambda: {fleet.call(one)["node"] for one in calls} >= set(had), "the second machine serves")

    fleet.kill()
    fleet.start()
    assert fleet.machines() == had, "nothing was ordered or ended for having died"
    for one in calls:
        fleet.until(lambda one=one: fleet.call(one)["state"] == "succeeded", "no call is lost")  # type: ignore[misc]
    attempts = [fleet.call(one)["attempts"] for one in calls]
    started = [[one for one in each if one["started_at"] is not None] for each in attempts]
    # What was released and not yet sent when the orchestrator died is released again: it never began.
    assert {len(each) for each in started} == {1}, "none was run twice"
    assert fleet.nodes() == set(had)

    long = fleet.sleep(600.0)
    fleet.until(lambda: fleet.call(long)["state"] == "running", "the long call runs")
    busy = fleet.call(long)["node"]
    fleet.until(lambda: fleet.nodes() == {busy}, "the idle one drains, leaves and is forgotten")
    assert set(fleet.machines("ready")) == {busy}
    held = fleet.call(long)
    assert (held["state"], held["fence"], held["node"]) == ("running", 1, busy)
    (idle,) = set(had) - {busy}
    fleet.until(lambda: not [one for one in fleet.processes().values() if idle in one], "its process has ended")

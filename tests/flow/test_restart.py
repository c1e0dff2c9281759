"""The orchestrator is killed and started again: its nodes stay, what was accepted ends, nothing runs twice."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WITHIN_S = 90.0
LEASE_TTL_S = 60
"""A busy machine must not lapse a lease here; how a restart renews leases is shown in test_protocol.py."""
ASK_EVERY_S = 0.1


@dataclass
class Processes:
    """One orchestrator and one node over the test's Redis, each ended by its pid."""

    folder: Path
    redis_url: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    join_token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    port: int = 0
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str, **settings: str) -> None:
        """A process of ours with these settings."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")}
        log = (self.folder / f"{name}.log").open("ab")
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", *command], env=ours | settings, cwd=self.folder, stdout=log, stderr=log
        )

    def start_orchestrator(self) -> None:
        """On the same ledger and, the second time, the same port."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        self.start(
            "orchestrator",
            "orchestrator.cli.main",
            "serve",
            MCPFLEET_DATABASE_URL=f"sqlite:///{self.folder / 'ledger.db'}",
            MCPFLEET_REDIS_URL=self.redis_url,
            MCPFLEET_BLOB_DIR=str(self.folder / "blobs"),
            MCPFLEET_TOKEN=self.token,
            MCPFLEET_JOIN_TOKEN=self.join_token,
            MCPFLEET_PORT=str(self.port),
            MCPFLEET_READY_FILE=str(ready),
            MCPFLEET_LEASE_TTL_S=str(LEASE_TTL_S),
        )
        self.until(ready.exists)
        self.port = int(ready.read_text().strip().rsplit(":", 1)[1])

    def start_node(self, **settings: str) -> None:
        """Until it is listed."""
        self.start(
            "node",
            "worker.cli",
            "run",
            "--name",
            "a1",
            MCPFLEET_NODE_ORCHESTRATOR_URL=self.url,
            MCPFLEET_NODE_JOIN_TOKEN=self.join_token,
            MCPFLEET_NODE_STATE_DIR=str(self.folder / "node"),
            **settings,
        )
        self.until(lambda: bool(self.get("/v1/nodes")["items"]))

    @property
    def url(self) -> str:
        """Of the HTTP door."""
        return f"http://127.0.0.1:{self.port}"

    def post(self, path: str, body: dict[str, Any], **query: Any) -> dict[str, Any]:
        """One answer."""
        head = {"Authorization": f"Bearer {self.token}"}
        return dict(httpx.post(self.url + path, params=query, json=body, headers=head, timeout=90).json())

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """One answer."""
        head = {"Authorization": f"Bearer {self.token}"}
        return dict(httpx.get(self.url + path, params=query, headers=head, timeout=90).json())

    def until(self, is_so: Any) -> None:
        """Poll, bounded."""
        deadline = time.monotonic() + WITHIN_S
        while not is_so():
            gone = [name for name, process in self.running.items() if process.poll() is not None]
            if gone or time.monotonic() > deadline:
                pytest.fail(f"{gone or 'nothing'} ended; waited in vain:\n{self.logs()}", pytrace=False)
            time.sleep(ASK_EVERY_S)

    def logs(self) -> str:
        """The end of what every process said."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))


@pytest.fixture
def fleet_of_one(tmp_path: Path, redis_url: str) -> Iterator[Processes]:
    """Started, and ended whatever happens."""
    processes = Processes(tmp_path, redis_url)
    try:
        processes.start_orchestrator()
        processes.start_node()
        yield processes
    finally:
        for process in processes.running.values():
            process.kill()
            process.wait()


def test_a_killed_orchestrator_comes_back_to_its_nodes_and_their_work(fleet_of_one: Processes) -> None:
    """Kill -9 in the middle of a call: it ends as it would have, on the same attempt, and the node stays."""
    fleet = fleet_of_one
    running = fleet.post("/v1/invocations", {"tool": "probe.sleep", "arguments": {"seconds": 4, "steps": 40}})
    path = f"/v1/invocations/{running['id']}"
    fleet.until(lambda: fleet.get(path)["state"] == "running")
    fence = fleet.get(path)["fence"]  # not always 1: a node that was slow to begin may have been given it anew
    fleet.running["orchestrator"].kill()
    fleet.running.pop("orchestrator").wait()
    fleet.start_orchestrator()
    ended = fleet.get(path, wait=40)
    assert (ended["state"], ended["fence"]) == ("succeeded", fence), (ended["attempts"], fleet.logs())
    assert fleet.post("/v1/invocations", {"tool": "probe.echo"}, wait=40)["state"] == "succeeded"
    assert fleet.running["node"].poll() is None, "the node never left"

"""One real local fleet for all flow tests: `mcpfleet up` as a person starts it, ended by its pid.

Redis, the SQLite ledger, an orchestrator and three nodes, each a process; their MCP servers are ones
we did not write.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

UP_WITHIN_S = 150.0
DOWN_WITHIN_S = 60.0
ASK_EVERY_S = 0.1
NODES = 3


@dataclass(frozen=True, slots=True)
class RunningFleet:
    """Where the fleet is. `state_dir` makes the CLI find it."""

    url: str
    token: str
    join_token: str
    state_dir: Path
    redis_url: str

    @property
    def environ(self) -> dict[str, str]:
        """For a client's process."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")}
        return ours | {"MCPFLEET_STATE_DIR": str(self.state_dir)}


@pytest.fixture(scope="session")
def fleet() -> Iterator[RunningFleet]:
    """A fleet of three nodes in two pools, without Flower."""
    with tempfile.TemporaryDirectory(prefix="mcpfleet-flow-") as folder:
        state_dir = Path(folder) / "state"
        environ = {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")}
        environ["MCPFLEET_STATE_DIR"] = str(state_dir)
        command = [sys.executable, "-m", "orchestrator.cli.main", "up", "--no-flower", "--verbose"]
        log = Path(folder) / "up.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=environ, cwd=folder, stdout=out, stderr=out)
        try:
            yield _until_up(process, state_dir, log)
        finally:
            _end(process)


@pytest.fixture
def fleet_url(fleet: RunningFleet) -> str:
    """Base URL of the running fleet."""
    return fleet.url


@pytest.fixture
def token(fleet: RunningFleet) -> str:
    """Its bearer token."""
    return fleet.token


def _until_up(process: subprocess.Popen[bytes], state_dir: Path, log: Path) -> RunningFleet:
    deadline = time.monotonic() + UP_WITHIN_S
    file = state_dir / "fleet.json"
    while not file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the fleet did not come up:\n{log.read_text()[-6000:]}", pytrace=False)
        time.sleep(ASK_EVERY_S)
    described = json.loads(file.read_text())
    running = RunningFleet(
        url=described["url"],
        token=described["token"],
        join_token=described["join_token"],
        state_dir=state_dir,
        redis_url=described.get("redis_url", ""),
    )
    while not _is_offered(running):
        if time.monotonic() > deadline:
            pytest.fail(f"the nodes' servers did not come up:\n{log.read_text()[-6000:]}", pytrace=False)
        time.sleep(ASK_EVERY_S)
    return running


def _is_offered(fleet: RunningFleet) -> bool:
    """A node joins without the servers that are slow to start, and offers them when they are up."""
    answer = httpx.get(f"{fleet.url}/v1/tools", headers={"Authorization": f"Bearer {fleet.token}"}, timeout=30)
    nodes_of = {tool["name"]: tool["nodes"] for tool in answer.json()["items"]}
    return nodes_of.get("time.get_current_time") == NODES and nodes_of.get("git.git_log") == 1


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(DOWN_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

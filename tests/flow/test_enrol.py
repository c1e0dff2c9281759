"""A node that enrols: a real fleet, a real worker process, and the command line between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.testing.local import Local, mcpfleet, until, upped
from worker.process import Exit

WITHIN_S = 90.0
NAME, POOL = "late-1", "late"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """One fleet for the module."""
    with upped(tmp_path_factory.mktemp("enrol"), "--nodes", "1", "--no-flower", environ=os.environ) as up:
        yield up


@contextmanager
def worker(fleet: Local, folder: Path, token: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """`mcpfleet-worker run` with nothing but a one-time token, or not even that."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")}
    environ = ours | {
        "MCPFLEET_NODE_ORCHESTRATOR_URL": fleet.url,
        "MCPFLEET_NODE_STATE_DIR": str(folder),
        "MCPFLEET_NODE_ENROL_TOKEN": token,
    }
    words = [sys.executable, "-P", "-m", "worker.cli", "run", "--name", NAME, "--pool", POOL]
    process = subprocess.Popen(words, env=environ)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(WITHIN_S)


def state_of(fleet: Local) -> str | None:
    """Of the late node, as operators see it."""
    nodes = json.loads(mcpfleet(fleet.environ, "nodes", "--json").stdout)
    return next((node["state"] for node in nodes if node["name"] == NAME), None)


def test_a_node_enrols_takes_calls_comes_back_and_is_revoked(fleet: Local, tmp_path: Path) -> None:
    """One token, once; then its own credential; then nothing."""
    said = mcpfleet(fleet.environ, "node", "enrol", NAME, "--pool", POOL)
    token = said.stdout.strip()
    with worker(fleet, tmp_path, token):
        until(lambda: state_of(fleet) == "active", WITHIN_S, "it has joined")
        called = mcpfleet(fleet.environ, "call", "probe.echo", "word=hello", "--pool", POOL)
        assert (called.returncode, "on late-1 in" in called.stderr) == (0, True)
    until(lambda: state_of(fleet) is None, WITHIN_S, "it has left")
    with worker(fleet, tmp_path) as process:
        until(lambda: state_of(fleet) == "active", WITHIN_S, "it is back without a token")
        assert mcpfleet(fleet.environ, "node", "revoke", NAME).returncode == 0
        assert process.wait(WITHIN_S) == Exit.SUPERSEDED
    with worker(fleet, tmp_path, token) as process:
        assert process.wait(WITHIN_S) == Exit.SHUT_OUT, "systemd starts it no more"

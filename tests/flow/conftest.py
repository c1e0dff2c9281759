"""One real local fleet for all flow tests: `mcpfleet up` as a person starts it, ended by its pid.

Redis, the SQLite ledger, an orchestrator, Flower and three nodes, each a process; their MCP servers
are ones we did not write.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from orchestrator.testing.local import UP_WITHIN_S, Local, gone, until, upped

NODES = 3


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A fleet of three nodes in two pools. Tests leave it as they found it."""
    with upped(tmp_path_factory.mktemp("fleet"), "--verbose", environ=os.environ) as local:
        until(lambda: _is_offered(local), UP_WITHIN_S, "the nodes offer their servers")
        yield local
        family = local.family()
        assert local.end(signal.SIGTERM) == 0, local.output.read_text()[-3000:]
        assert gone(family, 0.0) == []


@pytest.fixture
def fleet_url(fleet: Local) -> str:
    """Base URL of the running fleet."""
    return fleet.url


@pytest.fixture
def token(fleet: Local) -> str:
    """Its bearer token."""
    return fleet.token


def _is_offered(fleet: Local) -> bool:
    """A node joins without the servers that are slow to start, and offers them when they are up."""
    answer = httpx.get(f"{fleet.url}/v1/tools", headers={"Authorization": f"Bearer {fleet.token}"}, timeout=30)
    nodes_of = {tool["name"]: tool["nodes"] for tool in answer.json()["items"]}
    return nodes_of.get("time.get_current_time") == NODES and nodes_of.get("git.git_log") == 1

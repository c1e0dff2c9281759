"""A machine of the local-process cloud is a node of a real fleet: ordered, joined, called, ended, left."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from orchestrator.autoscaler.cloud.plugins import open_provider
from orchestrator.autoscaler.cloud.provider import CloudProvider, Order, ProviderConfig
from orchestrator.testing.local import Local
from orchestrator.testing.waiting import until

NAME = "elastic-aaaaaaaaa2"
JOINS_WITHIN_S = 90.0


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[CloudProvider]:
    """As the pools file names it, without options: its command is the real worker."""
    opened = open_provider(ProviderConfig("here", "local-process", {}, tmp_path, dict(os.environ)))
    yield opened
    await opened.close()


@pytest.fixture
async def http(fleet: Local) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the fleet's door."""
    headers = {"Authorization": f"Bearer {fleet.token}"}
    async with httpx.AsyncClient(base_url=fleet.url, headers=headers, timeout=60) as client:
        yield client


async def test_an_ordered_process_joins_takes_calls_and_leaves(
    fleet: Local, cloud: CloudProvider, http: httpx.AsyncClient
) -> None:
    """The order's environment is all it needs; told to end, it drains and says goodbye."""

    async def state() -> str:
        nodes = (await http.get("/v1/nodes")).json()["items"]
        return next((str(node["state"]) for node in nodes if node["name"] == NAME), "absent")

    async def has_joined() -> bool:
        return await state() == "active"

    async def has_left() -> bool:
        return await state() in {"left", "absent"}

    environ = {
        "MCPFLEET_NODE_NAME": NAME,
        "MCPFLEET_NODE_POOL": "elastic",
        "MCPFLEET_NODE_ORCHESTRATOR_URL": fleet.url,
        "MCPFLEET_NODE_JOIN_TOKEN": fleet.file.join_token,
    }
    made = await cloud.create(Order("aaaaaaaaa2", NAME, "ours", "elastic", environ=environ))
    await until(has_joined, JOINS_WITHIN_S)
    call = {"tool": "probe.echo", "arguments": {"word": "hello"}, "pool": "elastic"}
    answer = (await http.post("/v1/invocations", params={"wait": 30}, json=call)).json()
    assert answer["state"] == "succeeded"
    await cloud.terminate(made.id)
    await until(has_left, JOINS_WITHIN_S)

    async def is_gone() -> bool:
        return await cloud.machine(made.id) is None

    await until(is_gone, JOINS_WITHIN_S)

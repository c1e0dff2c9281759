"""One fleet with all of it on: TLS at its doors, managed Redis users, sealed messages, certificates of nodes.

Real processes, started as an operator starts them; a call goes through, and a revoked node is cut off.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from orchestrator.redis_users import user_of
from orchestrator.settings import OrchestratorSettings
from orchestrator.tls_doors import authority_for
from tasks.clock import SystemClock
from tests.security.redis_rig import redis_server

WITHIN_S = 100.0
OPERATOR = "operator-not-a-secret"


@asynccontextmanager
async def process(module: str, command: str, folder: Path, variables: Mapping[str, str]) -> AsyncIterator[None]:
    """One of ours; ended by its pid. What it said is in `folder`."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")} | dict(variables)
    with (folder / f"{module}.log").open("wb") as said:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", module, command, cwd=folder, env=environ, stdout=said, stderr=said
        )
        try:
            yield
        finally:
            started.terminate()
            await started.wait()


async def test_a_call_goes_through_a_fleet_with_everything_on(tmp_path: Path) -> None:
    """The node enrols by token over TLS, joins with its certificate, and works as its own Redis user."""
    async with redis_server(tmp_path, [], is_tls=False) as redis:
        settings = {
            "MCPFLEET_TOKEN": OPERATOR,
            "MCPFLEET_JOIN_TOKEN": secrets.token_hex(16),
            "MCPFLEET_POOL_SECRET": secrets.token_hex(32),
            "MCPFLEET_TLS": "true",
            "MCPFLEET_REDIS_ACL": "manage",
            "MCPFLEET_REDIS_URL": redis.url,
            "MCPFLEET_REDIS_URL_FOR_NODES": redis.bare_url,
            "MCPFLEET_PORT": "0",
            "MCPFLEET_READY_FILE": str(tmp_path / "ready"),
        }
        given = {name.removeprefix("MCPFLEET_").lower(): value for name, value in settings.items()}
        authority = authority_for(OrchestratorSettings.model_validate(given), SystemClock())
        assert authority is not None
        (tmp_path / "root.pem").write_text(authority.roots_pem)
        async with process("orchestrator.cli.main", "serve", tmp_path, settings):
            await _use(tmp_path, redis.url)


async def _use(folder: Path, redis_url: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not (folder / "ready").exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
    url = (folder / "ready").read_text().strip()
    assert url.startswith("https://")
    context = ssl.create_default_context(cafile=str(folder / "root.pem"))
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, verify=context, timeout=WITHIN_S) as http:
        enrolment = (await http.post("/v1/enrolments", json={"name": "n1", "pool": "default", "ttl_s": 600})).json()
        node = {
            "MCPFLEET_NODE_NAME": "n1",
            "MCPFLEET_NODE_ORCHESTRATOR_URL": url,
            "MCPFLEET_NODE_ENROL_TOKEN": enrolment["token"],
            "MCPFLEET_NODE_CA": str(folder / "root.pem"),
            "MCPFLEET_NODE_STATE_DIR": str(folder / "state"),
            "MCPFLEET_NODE_DRAIN_S": "1",
        }
        async with process("worker.cli", "run", folder, node):
            await _until_offered(http)
            posted = (
                await http.post("/v1/invocations", json={"tool": "probe.echo", "arguments": {"word": "hi"}})
            ).json()
            await http.post("/v1/invocations:wait", json={"ids": [posted["id"]], "timeout_s": 60})
            assert (await http.get(f"/v1/invocations/{posted['id']}")).json()["state"] == "succeeded"
            assert await _is_known(redis_url)
            assert (await http.delete("/v1/enrolments/n1")).status_code == 204
            async with asyncio.timeout(WITHIN_S):
                while await _is_known(redis_url):  # noqa: ASYNC110 - another process does it
                    await asyncio.sleep(0.05)


async def _until_offered(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not (await http.get("/v1/tools")).json()["items"]:  # noqa: ASYNC110 - asked over HTTP
            await asyncio.sleep(0.05)


async def _is_known(redis_url: str) -> bool:
    from redis.asyncio import Redis

    async with Redis.from_url(redis_url) as redis:
        users = await redis.acl_users()
    return user_of("n1") in {name.decode() if isinstance(name, bytes) else name for name in users}

"""Cloud credentials stay with the orchestrator: what a child of `mcpfleet up` really has in its environment."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from orchestrator.local import processes
from orchestrator.local.child import Child, ChildSpec
from orchestrator.local.credentials import credentials
from orchestrator.local.logfile import LogFile
from orchestrator.local.machines import MachinesPlan
from orchestrator.local.plan import NodePlan, Plan, plan_up
from orchestrator.local.statefile import FleetFile, IdentityFile

SAYS = "import json, os; print(json.dumps(dict(os.environ)), flush=True)"
NOT_A_SECRET = "not-a-secret"
POOLS = """
[providers.hetzner]
token_env = "PROJECT_KEY"
[providers.here]
kind = "local-process"
[pools.general.scale]
ladder = [{ provider = "hetzner", type = "cx33" }]
[anything.at.all]
password_env = "SECOND_KEY"
"""
SECRET = (
    "HCLOUD_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "DIGITALOCEAN_ACCESS_TOKEN",
    "AZURE_CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS", "OS_PASSWORD", "LINODE_TOKEN", "PROJECT_KEY", "SECOND_KEY",
)  # fmt: skip
HARMLESS = ("PATH", "HOME", "HTTPS_PROXY", "GITHUB_TOKEN", "OS_NAME", "GOOGLE_API_KEY", "AWSOME")
FLEET = FleetFile(url="http://127.0.0.1:1", token="t", join_token="j", redis_url="redis://127.0.0.1:1")


class _Nobody:
    mark: Mapping[str, str] = {}

    def started(self, group: int, grace_s: float) -> None:
        """Not kept."""

    def ended(self, group: int) -> None:
        """Not kept."""


def _plan(folder: Path) -> Plan:
    pools = folder / "pools.toml"
    pools.write_text(POOLS)
    environ = dict.fromkeys((*SECRET, *HARMLESS), NOT_A_SECRET)
    return Plan(folder, environ | {"MCPFLEET_POOLS_FILE": str(pools)}, ())


async def _has(spec: ChildSpec, folder: Path) -> dict[str, str]:
    """What a process started so finds in its environment."""
    child = Child(replace(spec, argv=(sys.executable, "-c", SAYS), fds=()), LogFile(folder / "said.log"), _Nobody())
    await child.start()
    async with asyncio.timeout(60.0):
        assert await child.died() == 0
    found: dict[str, str] = json.loads(child.log.tail(1))
    return found


def _servers(folder: Path, text: str) -> Path:
    path = folder / "servers.json"
    path.write_text(text)
    return path


async def test_a_node_that_up_starts_has_no_credentials_of_clouds(tmp_path: Path) -> None:
    """Not those that vendors' libraries read, nor those that the pools file names; all else reaches it."""
    spec = processes.node(_plan(tmp_path), NodePlan("n-1", "general"), FLEET, httpx.AsyncClient())
    has = await _has(spec, tmp_path)
    assert not set(SECRET) & has.keys()
    assert set(HARMLESS) <= has.keys()
    assert has["MCPFLEET_NODE_JOIN_TOKEN"] == "j"


async def test_flower_has_none_and_the_orchestrator_all(tmp_path: Path) -> None:
    """The one who orders machines needs them, and nobody else."""
    import socket

    plan, http = _plan(tmp_path), httpx.AsyncClient()
    identity = IdentityFile(token="t", join_token="j", flower_password="p")
    with socket.socket() as listen:
        listen.bind(("127.0.0.1", 0))
        flower = await _has(processes.flower(plan, FLEET, listen, identity, http), tmp_path)
        leads = await _has(processes.orchestrator(plan, FLEET, listen, http), tmp_path)
    assert not set(SECRET) & flower.keys()
    assert set(SECRET) <= leads.keys()


async def test_a_servers_file_may_ask_for_a_clouds_variable_by_name(tmp_path: Path) -> None:
    """An MCP server for a cloud gets its key where the user wrote so, and nothing else of it; the fleet's own never."""
    text = '{"mcpServers": {"s3": {"command": "s3", "env": {"K": "${AWS_PROFILE:-x}", "T": "${PROJECT_KEY}"}}}}'
    node = NodePlan("n-1", "general", servers_file=_servers(tmp_path, text))
    has = await _has(processes.node(_plan(tmp_path), node, FLEET, httpx.AsyncClient()), tmp_path)
    assert set(SECRET) & has.keys() == {"AWS_PROFILE"}


def test_machines_of_a_local_fleet_inherit_none(tmp_path: Path) -> None:
    """The pools file that is written for them does not name one."""
    plan = replace(_plan(tmp_path), machines=MachinesPlan("general", 2))
    processes._autoscaling(plan, plan.machines or pytest.fail("none"), FLEET)
    text = (tmp_path / "pools.toml").read_text()
    assert "GITHUB_TOKEN" in text
    assert not [name for name in SECRET[:-2] if f'"{name}"' in text]


@pytest.mark.parametrize("text", ["not = = toml", "\x00"])
def test_a_broken_pools_file_hides_what_is_known_by_name(tmp_path: Path, text: str) -> None:
    """The orchestrator says what is wrong with it; here it is no reason to hand on the rest."""
    path = tmp_path / "pools.toml"
    path.write_text(text)
    for broken in (path, tmp_path / "absent.toml"):
        assert credentials(["HCLOUD_TOKEN", "PATH"], pools_file=broken) == {"HCLOUD_TOKEN"}


def test_a_relative_pools_file_is_one_file_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The orchestrator starts in a folder of its own: it must read what its starter read, to hide what that names."""
    (tmp_path / "pools.toml").write_text(POOLS)
    monkeypatch.chdir(tmp_path)
    environ = {"PATH": "", "PROJECT_KEY": NOT_A_SECRET, "MCPFLEET_POOLS_FILE": "pools.toml"}
    plan = plan_up(
        state_dir=tmp_path / "state", environ=environ, port=0, general=1, servers=None, with_flower=False,
        ephemeral=False,
    )  # fmt: skip
    monkeypatch.chdir("/")
    assert plan.orchestrator_environ()["MCPFLEET_POOLS_FILE"] == str(tmp_path / "pools.toml")
    assert "PROJECT_KEY" not in plan.node_environ()


def test_a_pools_file_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    """Else a comment in it could hand its credentials on."""
    path = tmp_path / "pools.toml"
    path.write_text(f"# für uns\n{POOLS}", encoding="utf-8")
    asks = "import sys; from orchestrator.local.credentials import credentials as c"
    asks += "; print(c(['PROJECT_KEY'], pools_file=sys.argv[1]))"
    plain = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    said = subprocess.run([sys.executable, "-c", asks, path], env=plain, capture_output=True, check=True, timeout=60)
    assert b"PROJECT_KEY" in said.stdout

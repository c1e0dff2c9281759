"""`mcpfleet up --autoscale`: its pools file is one the orchestrator reads, and its machines end with it."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.autoscaler.cloud.local_process import open_local_process
from orchestrator.autoscaler.cloud.provider import Machine, Order, ProviderConfig
from orchestrator.local.machines import CLUSTER, PROVIDER, LocalMachines, MachinesPlan, write_pools_file
from orchestrator.local.plan import plan_up
from orchestrator.pools import read_pools
from tasks.errors import SettingsError

OBEDIENT = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()"
WITHIN_S = 30.0


async def started(state_dir: Path, name: str, program: str) -> Machine:
    """As the orchestrator's autoscaler starts one."""
    options = {"command": [sys.executable, "-c", program]}
    config = ProviderConfig(PROVIDER, PROVIDER, options, state_dir=state_dir / "cloud" / PROVIDER, environ=os.environ)
    provider = open_local_process(config)
    machine = await provider.create(Order(claim=name[-1], name=name, cluster=CLUSTER, pool="general"))
    await provider.close()
    return machine


def running(state_dir: Path) -> list[psutil.Process]:
    """Processes of its machines."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.environ().get("_MCPFLEET_MACHINE", "")
        except psutil.Error:
            continue
        if words.startswith(str(state_dir)) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


async def test_every_machine_ends_with_its_fleet(tmp_path: Path) -> None:
    """Whoever started them is gone already: they are found by what their provider wrote down."""
    for name in ("general-a", "general-b"):
        await started(tmp_path, name, OBEDIENT)
    assert running(tmp_path)
    async with asyncio.timeout(WITHIN_S):
        assert await LocalMachines(tmp_path, 5.0).end(asyncio.Event()) == []
    assert running(tmp_path) == []
    assert await LocalMachines(tmp_path, 5.0).ask() == []


async def test_whoever_is_in_a_hurry_learns_what_is_left(tmp_path: Path) -> None:
    """A second Ctrl-C does not wait for a machine that does not end; a second telling kills what is over its time."""
    await started(tmp_path, "general-a", STUBBORN)
    hurry = asyncio.Event()
    hurry.set()
    assert await LocalMachines(tmp_path, 5.0).end(hurry) == ["general-a"]
    for process in running(tmp_path):
        process.kill()
    async with asyncio.timeout(WITHIN_S):
        assert await LocalMachines(tmp_path, 5.0).end(asyncio.Event()) == []


async def test_a_fleet_that_never_ordered_a_machine_has_none_to_end(tmp_path: Path) -> None:
    """No folder is made to look into."""
    assert await LocalMachines(tmp_path, 5.0).end(asyncio.Event()) == []
    assert list(tmp_path.iterdir()) == []


def test_the_pools_file_is_what_the_orchestrator_reads(tmp_path: Path) -> None:
    """One to so many processes, each with the servers and settings of this fleet's nodes, and no value of a secret."""
    environ = {"PATH": "/bin", "MCPFLEET_NODE_SLOTS_TOOLS": "2", "SOME_KEY": "not-a-secret"}
    path = write_pools_file(tmp_path, MachinesPlan("general", 4), environ, 5.0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "not-a-secret" not in path.read_text()
    read = read_pools(path, cloud_dir=tmp_path / "cloud", environ=environ)
    policy, provider = read.scaled["general"], read.providers[PROVIDER]
    assert (policy.min_machines, policy.max_machines, policy.slots_tools) == (1, 4, 2)
    assert policy.environ["MCPFLEET_NODE_DRAIN_S"] == "5"
    assert Path(policy.environ["MCPFLEET_NODE_SERVERS"]).is_file()
    assert (read.limits.cluster, provider.environ["SOME_KEY"]) == (CLUSTER, "not-a-secret")
    open_local_process(provider)


def test_with_autoscale_the_general_pool_is_left_to_the_load(tmp_path: Path) -> None:
    """Its nodes are not started; a second pools file is refused before anything is."""
    asked = {"state_dir": tmp_path, "port": 0, "servers": None, "with_flower": False, "ephemeral": False}
    plan = plan_up(environ={}, general=None, autoscale=True, **asked)  # type: ignore[arg-type]
    assert [node.name for node in plan.nodes] == ["builders-1"]
    assert plan.machines is not None
    assert (plan.machines.pool, plan.machines.least, plan.machines.most) == ("general", 1, 4)
    assert [node.name for node in plan_up(environ={}, general=None, **asked).nodes] == [  # type: ignore[arg-type]
        "general-1",
        "general-2",
        "builders-1",
    ]
    with pytest.raises(SettingsError, match="MCPFLEET_POOLS_FILE names another"):
        plan_up(environ={"MCPFLEET_POOLS_FILE": "x"}, general=None, autoscale=True, **asked)  # type: ignore[arg-type]


def test_what_a_pools_file_names_reaches_the_orchestrator(tmp_path: Path) -> None:
    """A cloud's token is in a variable whose name only the file knows; the node's own settings stay with nodes."""
    environ = {"HCLOUD_TOKEN": "not-a-secret", "MCPFLEET_NODE_DRAIN_S": "3", "MCPFLEET_TOKEN": "not-yours"}
    environ["MCPFLEET_POOLS_FILE"] = str(tmp_path / "pools.toml")
    asked = {"state_dir": tmp_path, "port": 0, "servers": None, "with_flower": False, "ephemeral": False}
    plan = plan_up(environ=environ, general=None, **asked)  # type: ignore[arg-type]
    assert plan.orchestrator_environ() == {
        "HCLOUD_TOKEN": "not-a-secret",
        "MCPFLEET_POOLS_FILE": environ["MCPFLEET_POOLS_FILE"],
    }

"""What is the local processes' own: crashes half way, ends that are not obeyed, the dead-man's date."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestrator.autoscaler.cloud import processes
from orchestrator.autoscaler.cloud.errors import OrderRefused, QuotaReached
from orchestrator.autoscaler.cloud.minder import end_at_s
from orchestrator.autoscaler.cloud.plugins import open_provider
from orchestrator.autoscaler.cloud.provider import CloudProvider, Order, Power, ProviderConfig
from orchestrator.testing.waiting import until

ORDER = Order("aaaaaaaaa2", "pool-a", "ours", "pool", expires_at=4102444800.0)
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\nsignal.pause()"
Open = Callable[..., CloudProvider]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The provider's folder; no process of it outlives the test."""
    folder = tmp_path / "state"
    yield folder
    for home in folder.glob("*"):
        for pid in processes.marked(str(home)):
            processes.tell(pid, signal.SIGKILL)


@pytest.fixture
def opened(state: Path) -> Open:
    """Opens it with options."""

    def open_it(given: dict[str, str] | None = None, /, **options: object) -> CloudProvider:
        options = {"command": ["sleep", "600"], "stop_s": 5.0} | options
        config = ProviderConfig("here", "local-process", options, state, given or {"PATH": os.environ["PATH"]})
        return open_provider(config)

    return open_it


def record(state: Path) -> dict[str, object]:
    """As it is on disk."""
    found: dict[str, object] = json.loads((state / ORDER.name / "machine.json").read_text())
    return found


async def test_a_crash_before_the_pid_was_noted_leaves_no_second_process(state: Path, opened: Open) -> None:
    """The record was written, the process started, and its orchestrator died."""
    cloud = opened()
    await cloud.create(ORDER)
    noted = record(state)
    (state / ORDER.name / "machine.json").write_text(json.dumps(noted | {"pid": None, "born": ""}))
    other = opened()
    await other.create(ORDER)
    assert record(state)["pid"] == noted["pid"]
    await until(lambda: len(processes.marked(str(state / ORDER.name))) == 2)  # the minder and its command


async def test_a_crash_before_the_start_leaves_no_machine(state: Path, opened: Open) -> None:
    """A record without any process is nothing."""
    cloud = opened()
    await cloud.create(ORDER)
    noted = record(state)
    await cloud.terminate(ORDER.name)
    await until(lambda: not processes.marked(str(state / ORDER.name)))
    (state / ORDER.name / "machine.json").write_text(json.dumps(noted | {"pid": None, "born": ""}))
    assert await cloud.machines("ours") == []


async def test_a_number_used_again_is_somebody_else(state: Path, opened: Open) -> None:
    """A pid in an old record may be any process by now: it is neither shown nor ended."""
    cloud = opened()
    await cloud.create(ORDER)
    for pid in processes.marked(str(state / ORDER.name)):
        processes.tell(pid, signal.SIGKILL)
    (state / ORDER.name / "machine.json").write_text(json.dumps(record(state) | {"pid": os.getpid()}))
    found = await cloud.machine(ORDER.name)
    assert found is not None
    assert found.power is Power.STOPPED
    await cloud.terminate(ORDER.name)
    assert await cloud.machine(ORDER.name) is None


async def test_a_process_that_ended_by_itself_is_a_stopped_machine(state: Path, opened: Open) -> None:
    """Ordered again it is not started again: a claim whose machine failed is replaced by another claim."""
    cloud = opened(command=["true"])
    await cloud.create(ORDER)

    async def is_stopped() -> bool:
        found = await cloud.machine(ORDER.name)
        return found is not None and found.power is Power.STOPPED

    await until(is_stopped)
    assert (await cloud.create(ORDER)).power is Power.STOPPED
    assert not psutil.pid_exists(int(str(record(state)["pid"])))  # reaped
    await cloud.terminate(ORDER.name)
    assert await cloud.machines("ours") == []


async def test_who_does_not_obey_is_killed(state: Path, opened: Open) -> None:
    """SIGTERM, a while, SIGKILL: by its minder, without anybody asking again."""
    cloud = opened(command=[sys.executable, "-c", DEAF], stop_s=0.5)
    await cloud.create(ORDER)
    await until(lambda: "deaf" in (state / ORDER.name / "log").read_text())
    await cloud.terminate(ORDER.name)
    await until(lambda: not processes.marked(str(state / ORDER.name)))
    assert await cloud.machine(ORDER.name) is None


async def test_a_machine_whose_minder_was_killed_is_swept(state: Path, opened: Open) -> None:
    """Nothing would end its command: the next look does."""
    cloud = opened()
    await cloud.create(ORDER)
    await until(lambda: len(processes.marked(str(state / ORDER.name))) == 2)
    processes.tell(int(str(record(state)["pid"])), signal.SIGKILL)

    async def is_stopped() -> bool:
        found = await cloud.machine(ORDER.name)
        return found is not None and found.power is Power.STOPPED

    await until(is_stopped)
    await until(lambda: not processes.marked(str(state / ORDER.name)))


async def test_a_machine_nobody_asks_for_ends_itself(state: Path, opened: Open) -> None:
    """Its orchestrator is gone for good: the date it was given is its end."""
    await opened().create(replace(ORDER, expires_at=time.time() - 1))
    await until(lambda: not processes.marked(str(state / ORDER.name)))


@pytest.mark.parametrize(
    ("expires_at", "ttl_s", "heard_at", "end_at"),
    [(0.0, 0.0, 50.0, math.inf), (200.0, 100.0, 50.0, 200.0), (200.0, 100.0, 150.0, 250.0), (200.0, 100.0, 0.0, 200.0)],
)
def test_each_time_it_is_heard_of_gives_a_machine_its_whole_time(
    expires_at: float, ttl_s: float, heard_at: float, end_at: float
) -> None:
    """Without a date it has no end; a lost file does not shorten it."""
    assert end_at_s(expires_at, ttl_s, heard_at) == end_at


async def test_asking_for_the_machines_is_what_is_heard(state: Path, opened: Open) -> None:
    """The clock of each begins anew; a neighbour's is not touched."""
    cloud = opened()
    await cloud.create(ORDER)
    await cloud.create(replace(ORDER, claim="b", name="pool-b", cluster="neighbour"))
    for name in ("pool-a", "pool-b"):
        os.utime(state / name / "heard-of", (1, 1))
    await cloud.machines("ours")
    assert (state / "pool-a" / "heard-of").stat().st_mtime > 1
    assert (state / "pool-b" / "heard-of").stat().st_mtime == 1


async def test_an_orchestrators_secrets_do_not_reach_a_machine(state: Path, opened: Open) -> None:
    """Its environment holds cloud tokens: by name only; and what an order's holds is in no file but the process's."""
    environ = {"PATH": os.environ["PATH"], "HCLOUD_TOKEN": "not-a-secret", "MCPFLEET_TOKEN": "x", "WANTED": "w"}
    cloud = opened(environ, command=["env"], inherit=["WANTED"], environ={"A": "1", "B": "1"})
    await cloud.create(replace(ORDER, environ={"MCPFLEET_NODE_JOIN_TOKEN": "not-a-token", "B": "2"}))
    home = state / ORDER.name
    await until(lambda: "MCPFLEET_NODE_JOIN_TOKEN=not-a-token" in (home / "log").read_text())
    said = (home / "log").read_text().splitlines()
    assert {"WANTED=w", "A=1", "B=2", f"MCPFLEET_NODE_STATE_DIR={home / 'node'}"} <= set(said)
    assert not [line for line in said if line.startswith(("HCLOUD_TOKEN", "MCPFLEET_TOKEN"))]
    assert "not-a-token" not in (home / "machine.json").read_text()
    assert (home / "log").stat().st_mode & 0o077 == 0


async def test_the_limit_is_a_quota(opened: Open) -> None:
    """A machine that is there already is no new one."""
    cloud = opened(max_machines=1)
    await cloud.create(ORDER)
    await cloud.create(ORDER)
    with pytest.raises(QuotaReached, match=r"by \[providers\..*raise the limit there") as refused:
        await cloud.create(replace(ORDER, claim="b", name="pool-b"))
    assert "max_machines = 1" in refused.value.message
    assert "ask the provider" not in refused.value.message


async def test_a_command_that_is_not_there_is_an_order_refused(opened: Open) -> None:
    """At once, and by its name."""
    with pytest.raises(OrderRefused, match="its command no-such-program is not there"):
        await opened(command=["no-such-program"]).create(ORDER)


@pytest.mark.parametrize(("given", "price_eur_h"), [({}, 0.0), ({"price_eur_h": 0.25}, 0.25)])
async def test_a_machine_costs_what_it_is_reckoned_at(
    opened: Open, given: dict[str, float], price_eur_h: float
) -> None:
    """Nothing, for its host is paid for, unless somebody tries a budget here."""
    (product,) = await opened(**given).catalog()
    assert product.price_eur_h == price_eur_h

"""A node whose network is cut, and what a killed run leaves of the machinery for that."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.chaos.asked import SAFE, TERMINAL, UNSAFE
from tests.chaos.disks import Disks
from tests.chaos.fleet import Fleet
from tests.chaos.ground import Ground
from tests.chaos.network import Network
from tests.chaos.owner import is_orphan, owned

WITHIN_S = 90.0
LOOK_EVERY_S = 0.05
TRIES = 12
"""For a BRPOP that is outstanding when the cut comes: it is renewed every second."""
WORDS_OF_A_RUN = """
import sys
from pathlib import Path
from tests.chaos.disks import Disks
from tests.chaos.network import Network
with Network.laid(["a1"]) as network, Disks.mounted([Path(sys.argv[1])]):
    print("laid", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def network() -> Iterator[Network]:
    """Two cables."""
    with Network.laid(["n1", "n2"]) as laid:
        yield laid


@asynccontextmanager
async def _fleet(folder: Path, network: Network, *names: str) -> AsyncIterator[Fleet]:
    fleet = Fleet(folder, names, ground=Ground(network))
    try:
        await fleet.start()
        yield fleet
    finally:
        for name in names:
            network.plug(name)
        await fleet.close()


async def _asked(fleet: Fleet, tool: str, key: str, seconds: float = 0.0) -> str:
    body = {"tool": tool, "arguments": {"key": key, "seconds": seconds}, "project": "shop"}
    answer = (await fleet.ask("POST", "/v1/invocations", json=body)).raise_for_status()
    return str(answer.json()["id"])


async def _until(fleet: Fleet, invocation: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN_S):
        while True:
            answer = await fleet.ask("GET", f"/v1/invocations/{invocation}", params={"wait": 1.0})
            view: dict[str, Any] = answer.raise_for_status().json()
            if condition(view):
                return view


def _is_over(view: dict[str, Any]) -> bool:
    return view["state"] in TERMINAL


def _effects(fleet: Fleet) -> Counter[str]:
    lines = [json.loads(line) for line in fleet.marks.read_text().splitlines()]
    return Counter(line["key"] for line in lines if line["what"] == "effect")


@pytest.mark.live("namespaces")
@pytest.mark.timeout(300)
async def test_a_cut_past_the_lease_moves_safe_work_and_keeps_unsafe_work(tmp_path: Path, network: Network) -> None:
    """Safe work runs on the other node; unsafe work goes on where it is, and its answer is heard after the cut."""
    async with _fleet(tmp_path, network, "n1", "n2") as fleet:
        safe, unsafe = [await _asked(fleet, tool, tool, 3.0) for tool in (SAFE, UNSAFE)]
        views = [await _until(fleet, each, lambda view: view["state"] == "running") for each in (safe, unsafe)]
        (node,) = {view["node"] for view in views}  # their project's
        moved, stayed = [view["fence"] for view in views]
        network.unplug(node)
        again = await _until(fleet, safe, _is_over)
        network.plug(node)
        once = await _until(fleet, unsafe, _is_over)
        assert (again["state"], once["state"]) == ("succeeded", "succeeded")
        assert (once["fence"], once["node"]) == (stayed, node)
        assert (again["fence"], again["node"] == node) == (moved + 1, False)
        effects = _effects(fleet)
        assert effects[UNSAFE] == 1
        assert effects[SAFE] >= 1


@pytest.mark.live("namespaces")
@pytest.mark.timeout(300)
async def test_what_was_popped_into_a_dead_socket_is_released_again(tmp_path: Path, network: Network) -> None:
    """Redis gave the message to a node that never got it: two inventories disown it, and it runs once."""
    async with _fleet(tmp_path, network, "n1") as fleet, fleet.redis() as redis:
        for number in range(TRIES):
            pushed = await _pushed(redis)
            network.deafen("n1")
            invocation = await _asked(fleet, UNSAFE, f"k{number}")
            is_popped = await _is_popped(redis, "n1", pushed)
            if not network.forget_sockets("n1"):
                pytest.skip("this kernel cannot end another's socket (INET_DIAG_DESTROY)")
            network.plug("n1")
            view = await _until(fleet, invocation, _is_over)
            assert view["state"] == "succeeded"
            assert _effects(fleet)[f"k{number}"] == 1
            if is_popped:
                break
        assert is_popped
        assert view["fence"] > 1
        assert view["attempts"][0]["ending"] == "disowned"


async def _pushed(redis: Redis) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_lpush", {"calls": 0})["calls"])


async def _is_popped(redis: Redis, node: str, pushed_before: int) -> bool:
    """Whether the delivery went out and is gone from the node's queue, while the node hears nothing."""
    async with asyncio.timeout(WITHIN_S):
        while await _pushed(redis) == pushed_before:  # noqa: ASYNC110 - another process gives no event
            await asyncio.sleep(LOOK_EVERY_S)
    queues = [key async for key in redis.scan_iter(match=f"mcpfleet.n.{node}.*", _type="list")]
    return not queues


@pytest.mark.live("namespaces", "small-disks")
def test_a_later_run_clears_up_after_a_killed_one(tmp_path: Path) -> None:
    """Namespaces, cables and disks carry their owner; those of a living run are left alone."""
    run = subprocess.Popen(
        [sys.executable, "-c", WORDS_OF_A_RUN, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == b"laid\n"
    assert Network.sweep() == []
    assert Disks.sweep() == []
    run.kill()
    run.wait()
    left = [name for name in Network.sweep() if f"-{run.pid}-" in name]
    assert len(left) == 1
    assert tmp_path in Disks.sweep()
    assert not tmp_path.is_mount()
    assert Network.sweep() == []


def test_a_name_says_whose_it_is() -> None:
    """A living process is no orphan's owner, a number used again is not the owner, and strangers are not ours."""
    ours = owned("a1")
    prefix, pid, birth, rest = ours.rsplit("-", 3)
    assert not is_orphan(ours)
    assert is_orphan(f"{prefix}-{pid}-{int(birth) + 1}-{rest}")
    assert not is_orphan("somebody-elses-1-2-a1")

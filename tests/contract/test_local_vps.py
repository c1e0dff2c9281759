"""`local-vps` on a real kernel: machines that boot, are found again, and are gone without a trace.

The image is a static busybox, so that this costs seconds; what needs systemd and cloud-init is in
`test_local_vps_debian.py`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.errors import CloudDown
from orchestrator.autoscaler.cloud.local_vps import LocalVps
from orchestrator.autoscaler.cloud.nspawn.command import run
from orchestrator.autoscaler.cloud.provider import Machine, Order, Power
from orchestrator.testing.waiting import until
from tests.vps.ground import left_of, provider, tiny_image

pytestmark = pytest.mark.live("root", "nspawn", "busybox")

CLUSTER = "test"
CREATE = """
import asyncio, sys
from pathlib import Path
from orchestrator.autoscaler.cloud.provider import Order
from tests.vps.ground import provider
state, image, claim = sys.argv[1:]
asyncio.run(provider(Path(state), Path(image)).create(Order(claim, f"web-{claim}", "test", "web")))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once."""
    return tiny_image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Of one test."""
    return tmp_path / "state"


@pytest.fixture
async def cloud(state_dir: Path, image: Path) -> AsyncIterator[LocalVps]:
    """Its machines are ended, and it is an error if anything of them is left."""
    made = provider(state_dir, image)
    yield made
    for machine in await made.machines(CLUSTER):
        await made.terminate(machine.id)
    await made.sweep()
    assert not left_of(state_dir)


def order(claim: str, user_data: str = "") -> Order:
    """A machine of the pool `web`."""
    return Order(claim, f"web-{claim}", CLUSTER, "web", user_data=user_data)


async def told(machine: Machine, path: str = "/") -> str:
    """What its web server says; empty while it says nothing."""

    def ask() -> str:
        try:
            with urllib.request.urlopen(f"http://{machine.address}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    return await asyncio.to_thread(ask)


async def test_a_machine_boots_with_a_name_and_an_address_of_its_own(cloud: LocalVps) -> None:
    """Two machines, two addresses, and each answers there as itself."""
    one, two = await cloud.create(order("one")), await cloud.create(order("two"))
    assert one.address != two.address
    assert (await until(lambda: told(one))).strip() == "web-one"
    assert (await until(lambda: told(two))).strip() == "web-two"


async def test_nothing_is_left_of_a_terminated_machine(cloud: LocalVps, state_dir: Path) -> None:
    """No process, mount, namespace, cable, control group or folder; saying it twice is no error."""
    machine = await cloud.create(order("one"))
    assert {"processes", "namespaces", "cables", "control groups", "mounts", "folders"} <= set(left_of(state_dir))
    await cloud.terminate(machine.id)
    await cloud.terminate(machine.id)
    assert await cloud.machine(machine.id) is None
    assert not left_of(state_dir)


async def test_ending_one_machine_leaves_the_other_alone(cloud: LocalVps) -> None:
    """Each has its own control group: killing one's processes is not killing the other's."""
    one, two = await cloud.create(order("one")), await cloud.create(order("two"))
    await until(lambda: told(two))
    await cloud.terminate(one.id)
    assert [machine.id for machine in await cloud.machines(CLUSTER)] == [two.id]
    assert (await told(two)).strip() == "web-two"


async def test_a_machine_that_powers_itself_off_is_stopped(cloud: LocalVps) -> None:
    """Still listed, as a cloud would, and asked for again it is not booted anew."""
    machine = await cloud.create(order("one"))
    await until(lambda: told(machine))
    await told(machine, "/cgi-bin/poweroff")

    async def power() -> Power | None:
        seen = await cloud.machine(machine.id)
        return seen.power if seen else None

    async def is_stopped() -> bool:
        return await power() is Power.STOPPED

    await until(is_stopped)
    assert (await cloud.create(order("one"))).power is Power.STOPPED


async def test_another_process_finds_and_ends_it(cloud: LocalVps, state_dir: Path, image: Path) -> None:
    """Machines belong to the folder, not to the process that made them."""
    machine = await cloud.create(order("one"))
    other = provider(state_dir, image)
    assert await other.machines(CLUSTER) == [machine]
    assert await other.create(order("one")) == machine
    await other.terminate(machine.id)
    assert await cloud.machines(CLUSTER) == []


@pytest.mark.parametrize("point", ["machines/*/record.json", "machines/*/upper", "machines/*/console.log"])
async def test_a_create_that_was_killed_is_taken_up(cloud: LocalVps, state_dir: Path, image: Path, point: str) -> None:
    """Whatever kill -9 left, the same order gives the one machine of this claim, and it works."""
    words = [sys.executable, "-c", CREATE, str(state_dir), str(image), "one"]
    child = await asyncio.create_subprocess_exec(*words)
    await until(lambda: list(state_dir.glob(point)))
    child.send_signal(signal.SIGKILL)
    await child.wait()
    machine = await cloud.create(order("one"))
    assert [each.id for each in await cloud.machines(CLUSTER)] == [machine.id]
    assert (await until(lambda: told(machine))).strip() == "web-one"


async def test_what_has_no_record_is_swept_away(cloud: LocalVps, state_dir: Path) -> None:
    """A terminate that was killed after the record went leaves a stray, which the next sweep ends."""
    machine = await cloud.create(order("one"))
    (state_dir / "machines" / machine.id / "record.json").unlink()
    assert await cloud.machines(CLUSTER) == []
    assert await cloud.sweep() == [machine.id]
    assert not left_of(state_dir)


async def test_half_of_a_machine_is_swept_away_too(cloud: LocalVps, state_dir: Path) -> None:
    """A namespace without processes, and a folder without a record: what is left when kill -9 comes in between."""
    machine = await cloud.create(order("one"))
    await cloud.terminate(machine.id)
    owner = machine.id[:4]
    await run("ip", "netns", "add", f"mcpfleet-vps-{owner}aaaaaaaa")
    (state_dir / "machines" / f"{owner}bbbbbbbb").mkdir()
    assert await cloud.sweep() == [f"{owner}aaaaaaaa", f"{owner}bbbbbbbb"]
    assert not left_of(state_dir)


async def test_a_machine_uses_no_more_than_its_type_says(state_dir: Path, image: Path, cloud: LocalVps) -> None:
    """The limit is outside, where the machine cannot lift it."""
    types = {"small": {"memory_bytes": 256 * 1024 * 1024}}
    machine = await provider(state_dir, image, types=types).create(order("one"))
    files = ("memory/mcpfleet-vps/*/memory.limit_in_bytes", "mcpfleet-vps/*/memory.max")
    limits = [found.read_text().strip() for name in files for found in Path("/sys/fs/cgroup").glob(name)]
    assert str(256 * 1024 * 1024) in limits
    await cloud.terminate(machine.id)


async def test_an_image_that_does_not_boot_is_told(state_dir: Path, tmp_path: Path) -> None:
    """The error carries what the machine said last, and nothing is left once it is ended."""
    broken = tmp_path / "broken"
    (broken / "sbin").mkdir(parents=True)
    (broken / "sbin" / "init").touch()
    cloud = provider(state_dir, broken)
    with pytest.raises(CloudDown, match="os-release"):
        await cloud.create(order("one"))
    (pending,) = await cloud.machines(CLUSTER)
    assert pending.power is Power.PENDING
    await cloud.terminate(pending.id)
    assert not left_of(state_dir)

"""What `local-vps` keeps, refuses and finds again, without a kernel: the host is a fake, the records are real."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.errors import CloudDown, OrderRefused, OutOfCapacity, QuotaReached
from orchestrator.autoscaler.cloud.local_vps import LocalVps
from orchestrator.autoscaler.cloud.nspawn.cgroups import mounted
from orchestrator.autoscaler.cloud.nspawn.command import CommandFailed
from orchestrator.autoscaler.cloud.nspawn.network import Wire
from orchestrator.autoscaler.cloud.nspawn.options import MachineType, read
from orchestrator.autoscaler.cloud.nspawn.records import Record, Records
from orchestrator.autoscaler.cloud.provider import Notice, Order, Power
from tasks.errors import SettingsError

CLUSTER = "test"
NOW = 1_000.0


@dataclass
class FakeHost:
    """Boots nothing, and remembers what it was asked."""

    running: set[str] = field(default_factory=set)
    booted: list[tuple[str, str]] = field(default_factory=list)
    is_broken: bool = False

    async def wire(self) -> Wire:
        return Wire("br", ipaddress.IPv4Interface("10.213.1.1/29"))

    async def boot(self, record: Record, kind: MachineType, wire: Wire, user_data: str) -> None:
        await asyncio.sleep(0)
        if self.is_broken:
            raise CommandFailed(("systemd-nspawn",), "broken")
        self.booted.append((record.id, record.address))
        self.running.add(record.id)

    async def end(self, machine_id: str, *, stop_s: float) -> None:
        await asyncio.sleep(0)
        self.running.discard(machine_id)

    async def sweep(self) -> list[str]:
        return []

    def runs(self, machine_id: str) -> bool:
        return machine_id in self.running


@pytest.fixture
def host() -> FakeHost:
    """One kernel, whoever asks it."""
    return FakeHost()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Looks like one."""
    init = tmp_path / "image" / "sbin" / "init"
    init.parent.mkdir(parents=True)
    init.touch()
    return tmp_path / "image"


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Of all providers of a test."""
    return tmp_path / "state"


@pytest.fixture
def cloud(host: FakeHost, state_dir: Path, image: Path) -> LocalVps:
    """One process's."""
    return opened(host, state_dir, image)


def opened(host: FakeHost, state_dir: Path, image: Path, **table: object) -> LocalVps:
    """As another process would open it."""
    options = read("here", {"image": str(image)} | table)
    return LocalVps("here", options, Records(state_dir), host, lambda: NOW)


def order(claim: str, **more: object) -> Order:
    """A machine of the pool `web`."""
    words: dict[str, object] = {"claim": claim, "name": f"web-{claim}", "cluster": CLUSTER, "pool": "web"}
    return Order(**(words | more))  # type: ignore[arg-type]


async def test_one_claim_is_one_machine_whoever_orders_it(
    cloud: LocalVps, host: FakeHost, state_dir: Path, image: Path
) -> None:
    """Two orchestrators that order the same claim at once get the same machine, booted once."""
    other = opened(host, state_dir, image)
    first, second = await asyncio.gather(cloud.create(order("a")), other.create(order("a")))
    assert first == second
    assert len(host.booted) == 1


async def test_an_interrupted_order_is_taken_up_under_its_id_and_address(cloud: LocalVps, host: FakeHost) -> None:
    """What failed is listed as pending, so that it can be ended; asked for again it is the same machine."""
    host.is_broken = True
    with pytest.raises(CloudDown, match="broken"):
        await cloud.create(order("a"))
    (pending,) = await cloud.machines(CLUSTER)
    assert pending.power is Power.PENDING
    host.is_broken = False
    machine = await cloud.create(order("a"))
    assert (machine.id, machine.address) == (pending.id, pending.address)
    assert machine.power is Power.RUNNING


async def test_claims_of_other_clusters_and_folders_are_other_machines(
    cloud: LocalVps, host: FakeHost, tmp_path: Path, image: Path
) -> None:
    """An id that is the same for the same claim is never the same for another's."""
    elsewhere = opened(host, tmp_path / "elsewhere", image)
    made = [
        await cloud.create(order("a")),
        await cloud.create(order("a", cluster="other", name="other-a")),
        await elsewhere.create(order("a")),
    ]
    assert len({machine.id for machine in made}) == 3
    assert [machine.id for machine in await cloud.machines(CLUSTER)] == [made[0].id]


async def test_a_machine_whose_processes_are_gone_is_stopped(cloud: LocalVps, host: FakeHost) -> None:
    """Power is what the kernel says, not what was written down."""
    machine = await cloud.create(order("a"))
    host.running.clear()
    seen = await cloud.machine(machine.id)
    assert seen is not None
    assert seen.power is Power.STOPPED


async def test_a_machine_that_is_being_ended_is_not_booted_again(cloud: LocalVps, state_dir: Path) -> None:
    """A late order of the same claim finds it ending; its address is not given away before it is gone."""
    machine = await cloud.create(order("a"))
    records = Records(state_dir)
    record = records.get(machine.id)
    assert record is not None
    records.put(record.model_copy(update={"is_ending": True}))
    assert (await cloud.create(order("a"))).power is Power.ENDING
    assert (await cloud.create(order("b"))).address != machine.address


async def test_what_was_ended_is_gone_however_often_it_is_said(cloud: LocalVps, state_dir: Path) -> None:
    """Unknown ids are no error, not even one that is a path."""
    machine = await cloud.create(order("a"))
    for machine_id in (machine.id, machine.id, "never", "../owner", ""):
        await cloud.terminate(machine_id)
    assert await cloud.machines(CLUSTER) == []
    assert not list((state_dir / "machines").iterdir())
    assert (state_dir / "owner").exists()


async def test_an_id_leads_nowhere_else(cloud: LocalVps, state_dir: Path) -> None:
    """A record outside the machines' folder is nobody's machine."""
    machine = await cloud.create(order("a"))
    (state_dir / "elsewhere").mkdir()
    (state_dir / "machines" / machine.id / "record.json").rename(state_dir / "elsewhere" / "record.json")
    assert await cloud.machine("../elsewhere") is None


async def test_a_quota_is_kept(host: FakeHost, state_dir: Path, image: Path) -> None:
    """The next rung is tried, and there is room again once a machine is gone."""
    cloud = opened(host, state_dir, image, max_machines=1)
    machine = await cloud.create(order("a"))
    with pytest.raises(QuotaReached, match="max_machines = 1"):
        await cloud.create(order("b"))
    await cloud.terminate(machine.id)
    await cloud.create(order("b"))


async def test_addresses_run_out_politely(host: FakeHost, state_dir: Path, image: Path) -> None:
    """A /29 has five besides the host's."""
    cloud = opened(host, state_dir, image, max_machines=9)
    made = [await cloud.create(order(claim)) for claim in "abcde"]
    assert len({machine.address for machine in made} | {"10.213.1.1"}) == 6
    with pytest.raises(QuotaReached, match=re.escape("10.213.1.0/29")):
        await cloud.create(order("f"))


async def test_a_host_without_memory_has_no_capacity(host: FakeHost, state_dir: Path, image: Path) -> None:
    """Rather than letting the kernel kill what runs already."""
    cloud = opened(host, state_dir, image, types={"huge": {"memory_bytes": 2**50}})
    with pytest.raises(OutOfCapacity):
        await cloud.create(order("a"))
    assert await cloud.machines(CLUSTER) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"type": "cx33"}, "no type 'cx33' here, there are small"),
        ({"region": "fsn1"}, "no region 'fsn1' here, there is 'local'"),
        ({"image": "/nowhere"}, "deploy/vps/build-image"),
        ({"name": "Not_A_Host"}, "name of a host"),
    ],
)
async def test_an_order_that_can_never_be_met_says_why(cloud: LocalVps, more: dict[str, object], said: str) -> None:
    """Nothing is written down of it."""
    with pytest.raises(OrderRefused, match=said):
        await cloud.create(order("a", **more))
    assert await cloud.machines(CLUSTER) == []


async def test_a_name_is_of_one_machine(cloud: LocalVps) -> None:
    """Another claim under the same name is a mistake of whoever orders."""
    await cloud.create(order("a"))
    with pytest.raises(OrderRefused, match="of claim a"):
        await cloud.create(order("b", name="web-a"))


async def test_a_record_that_cannot_be_read_is_an_error_and_not_an_absent_machine(
    cloud: LocalVps, state_dir: Path
) -> None:
    """Or it would run, unpaid for by anybody's attention."""
    machine = await cloud.create(order("a"))
    (state_dir / "machines" / machine.id / "record.json").write_text("{")
    with pytest.raises(CloudDown, match=r"record\.json"):
        await cloud.machines(CLUSTER)


async def test_a_machine_that_will_be_taken_away_is_announced(cloud: LocalVps) -> None:
    """To every process that asks, for its own cluster only."""
    machine = await cloud.create(order("a", is_spot=True))
    await cloud.announce(machine.id, 5.0)
    assert await cloud.notices(CLUSTER) == [Notice(machine.id, 5.0)]
    assert await cloud.notices("other") == []


async def test_what_can_be_had_is_what_the_file_says(host: FakeHost, state_dir: Path, image: Path) -> None:
    """Types with their price, on demand and as spot."""
    cloud = opened(host, state_dir, image, types={"big": {"cpus": 2, "price_eur_h": 0.5}})
    seen = {(each.type, each.is_spot, each.price_eur_h, each.cpus) for each in await cloud.catalog()}
    assert seen == {("big", False, 0.5, 2), ("big", True, 0.5, 2)}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"imgae": "x"}, "imgae"),
        ({"subnet": "8.8.8.0/24"}, "private"),
        ({"subnet": "10.1.0.0/24", "bridge": "br0"}, "not both"),
        ({"types": {}}, "types"),
        ({"max_machines": 0}, "max_machines is 0: write 1 or more"),
    ],
)
def test_a_wrong_option_is_named(table: dict[str, object], said: str) -> None:
    """At the start, with its file and provider."""
    with pytest.raises(SettingsError, match=said) as caught:
        read("pools.toml: [providers.here]", table)
    assert str(caught.value).startswith("pools.toml: [providers.here] ")


def test_control_groups_are_found_in_either_version() -> None:
    """Both at once, as systemd calls hybrid, and of version 1 only what a machine needs."""
    hybrid = (
        "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
        "cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\n"
        "cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n"
    )
    assert [(each.root.name, each.is_v2) for each in mounted(hybrid)] == [
        ("memory", False),
        ("systemd", False),
        ("unified", True),
    ]
    assert [each.is_v2 for each in mounted("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n")] == [True]

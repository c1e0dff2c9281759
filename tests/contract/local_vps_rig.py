"""`local-vps` under the suite of all clouds: machines that boot, from an image that costs nothing."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from typing import ClassVar

import pytest

from orchestrator.autoscaler.cloud.local_vps import MOUNTS, open_local_vps
from orchestrator.autoscaler.cloud.nspawn.cgroups import Cgroups, mounted
from orchestrator.autoscaler.cloud.nspawn.records import Record, Records
from orchestrator.autoscaler.cloud.provider import Machine, ProviderConfig
from tests.contract.cloud_rigs import Rig
from tests.contract.cloud_suite import CLUSTER, Trouble
from tests.vps.ground import left_of, tiny_image

MACHINES = 4
MIB = 1024 * 1024


class LocalVpsRig(Rig):
    """Machines that boot, from a tiny image; the other side's books are the kernel's control groups."""

    kind = "local-vps"
    can = frozenset({Trouble.QUOTA, Trouble.NOTICE, Trouble.EMPTY})
    live: ClassVar = ("root", "nspawn", "busybox")
    type, region = "small", "here"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._image = tiny_image(self.folder / "image")
        self._records = Records(self.folder / "state")
        self._cgroups = Cgroups(mounted(MOUNTS.read_text()))

    def options(self) -> Mapping[str, object]:
        """Few machines, and another type that does not fit on any host."""
        types = {"small": {"memory_bytes": 128 * MIB}, "no-such-host": {"memory_bytes": 2**60}}
        return {"image": str(self._image), "region": self.region, "max_machines": MACHINES, "types": types, "stop_s": 2}

    def there(self, cluster: str = CLUSTER) -> int:
        """Machines in which something runs."""
        ours = [record.id for record in self._records.all() if record.cluster == cluster]
        return sum(bool(self._cgroups.processes(machine_id)) for machine_id in ours)

    def make(self, trouble: Trouble, machine: Machine | None = None) -> None:
        """By what is on the disk."""
        match trouble:
            case Trouble.QUOTA:
                for n in range(MACHINES):
                    self._records.put(self._neighbour(n))
            case Trouble.NOTICE:
                assert machine is not None
                record = self._records.get(machine.id)
                assert record is not None
                self._records.put(record.model_copy(update={"notice_at": 1.0}))
            case Trouble.EMPTY:
                self.type = "no-such-host"
            case _:
                super().make(trouble, machine)

    def close(self) -> None:
        """Nothing is left of any."""
        shutil.rmtree(self.folder / "state" / "machines", ignore_errors=True)
        asyncio.run(open_local_vps(self._config()).sweep())
        assert not left_of(self.folder / "state")

    def _config(self) -> ProviderConfig:
        return ProviderConfig("cloud-of-ours", self.kind, self.options(), self.folder / "state")

    def _neighbour(self, n: int) -> Record:
        who = {"id": self._records.id_of("neighbour", f"x{n}"), "claim": f"x{n}", "name": f"x{n}", "pool": "p"}
        return Record(**who, cluster="neighbour", type="small", image=self._image, address=f"192.0.2.{n}")

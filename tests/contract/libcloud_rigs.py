"""Three vendors over the real drivers of apache-libcloud, each with a double of its API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest

from orchestrator.autoscaler.testing.digitalocean_double import DigitalOceanDouble
from orchestrator.autoscaler.testing.faulty_http import Fault
from orchestrator.autoscaler.testing.linode_double import LinodeDouble
from orchestrator.autoscaler.testing.vendor_double import VendorDouble
from orchestrator.autoscaler.testing.vultr_double import VultrDouble
from tests.contract.cloud_rigs import MANY, SECRET, Rig
from tests.contract.cloud_suite import CLUSTER, Trouble


class LibcloudRig(Rig):
    """What they share."""

    can = frozenset(Trouble) - {Trouble.NOTICE}
    double_of: ClassVar[type[VendorDouble]]
    secrets = (SECRET,)

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.double = self.double_of(SECRET)

    def options(self) -> Mapping[str, object]:
        """The token by reference."""
        return {"base_url": self.double.http.url, "token_env": "A_VARIABLE", "answer_within_s": self.patience_s}

    def environ(self) -> Mapping[str, str]:
        """With the token."""
        return {"A_VARIABLE": SECRET}

    def there(self, cluster: str = CLUSTER) -> int:
        """Machines with the tag."""
        return sum(f"mcpfleet-cluster:{cluster}" in form["tags"] for form in self.double.machines.values())

    def make(self, trouble: Trouble, machine: object = None) -> None:
        """By the double."""
        match trouble:
            case Trouble.LOST:
                self.double.lose_answer(self.double.create)
            case Trouble.LATE_LISTS:
                self.double.lag(True)
            case Trouble.BUSY:
                self.double.fail(self.double.create, 429, "Too many requests", retry_after_s=7)
            case Trouble.BROKEN:
                for operation in self.double.operations:
                    self.double.fail(operation, 500, "Unexpected server-side error")
            case Trouble.SILENT:
                self.double.http.meet(self.double.create, Fault(is_carried_out=True, hangs=True), MANY)
            case Trouble.EMPTY:
                self.double.out_of_stock.add((self.type, self.region))
            case Trouble.QUOTA:
                self.double.limit = 0
            case Trouble.REFUSED:
                self.double.turn_away()

    def end(self, trouble: Trouble) -> None:
        """All is well."""
        self.double.lag(False)
        self.double.http.forgive()

    def close(self) -> None:
        """Whoever hangs is let go."""
        self.double.close()


class DigitalOceanRig(LibcloudRig):
    """Droplets."""

    kind = "digitalocean"
    type, region = "s-2vcpu-4gb", "fra1"
    double_of = DigitalOceanDouble


class LinodeRig(LibcloudRig):
    """Unique labels."""

    kind = "linode"
    type, region = "g6-standard-1", "eu-central"
    double_of = LinodeDouble


class VultrRig(LibcloudRig):
    """Ids are UUIDs."""

    kind = "vultr"
    type, region = "vc2-2c-4gb", "fra"
    double_of = VultrDouble

"""The providers that the suite of `cloud_suite.py` holds to its promises, each with its other side."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from orchestrator.autoscaler.cloud import processes
from orchestrator.autoscaler.cloud.plugins import open_provider
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Order, ProviderConfig
from orchestrator.autoscaler.testing import hetzner_double
from orchestrator.autoscaler.testing.faulty_http import Fault
from orchestrator.autoscaler.testing.hetzner_double import HetznerDouble
from tests.contract import ec2_front
from tests.contract.cloud_suite import CLUSTER, EXPIRES_AT, Trouble
from tests.contract.ec2_front import Ec2Front, living, moto_client

SECRET = "not-a-secret-but-must-not-be-seen"
MANY = 20


class Rig:
    """What all have: a folder, and a provider opened from a table as in a pools file."""

    kind: ClassVar[str]
    can: ClassVar[frozenset[Trouble]] = frozenset()
    type: ClassVar[str] = ""
    region: ClassVar[str] = ""
    secrets: tuple[str, ...] = ()
    patience_s = 30.0

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.folder: Path = request.getfixturevalue("tmp_path")

    def options(self) -> Mapping[str, object]:
        """The table."""
        raise NotImplementedError

    def environ(self) -> Mapping[str, str]:
        """The orchestrator's."""
        return {}

    def open(self) -> CloudProvider:
        """Another orchestrator's."""
        config = ProviderConfig("cloud-of-ours", self.kind, self.options(), self.folder / "state", self.environ())
        return open_provider(config)

    def order(self, claim: str, cluster: str = CLUSTER) -> Order:
        """One that is carried out."""
        return Order(claim, f"pool-{claim}", cluster, "pool", type=self.type, region=self.region, expires_at=EXPIRES_AT)

    def wrong_order(self) -> Order:
        """A type nobody has."""
        return replace(self.order("ddddddddd5"), type="no-such-type")

    def make(self, trouble: Trouble, machine: Machine | None = None) -> None:
        """None can be made."""
        raise NotImplementedError(trouble)

    def end(self, trouble: Trouble) -> None:
        """None was."""
        raise NotImplementedError(trouble)

    def close(self) -> None:
        """At the end of the test."""


class StaticRig(Rig):
    """Two hosts of one type; the other side's books are the folder."""

    kind = "static"
    can = frozenset({Trouble.EMPTY})
    type, region = "big", "cellar"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._hosts = 4

    def options(self) -> Mapping[str, object]:
        """Of two kinds."""
        ours = [{"address": f"192.0.2.{n}", "type": "big", "region": "cellar"} for n in range(self._hosts)]
        return {"hosts": [*ours, "2001:db8::1"]}

    def there(self, cluster: str = CLUSTER) -> int:
        """Hosts in use."""
        return sum(f'"cluster":"{cluster}"' in path.read_text() for path in self.folder.glob("state/*/machine.json"))

    def make(self, trouble: Trouble, machine: Machine | None = None) -> None:
        """All are taken by others."""
        for n in range(self._hosts):
            taken = self.folder / "state" / f"192.0.2.{n}"
            taken.mkdir(parents=True)
            kept = (
                f'{{"claim":"x{n}","name":"x{n}","cluster":"neighbour","pool":"p","type":"","region":"",'
                f'"created_at":1,"expires_at":0}}'
            )
            (taken / "machine.json").write_text(f'{{"kept":{kept},"address":"192.0.2.{n}"}}')


class LocalProcessRig(Rig):
    """Processes that do nothing; the other side's books are the system's processes."""

    kind = "local-process"

    def options(self) -> Mapping[str, object]:
        """A stand-in for the worker."""
        return {"command": ["sleep", "600"], "stop_s": 5.0}

    def environ(self) -> Mapping[str, str]:
        """As little as a program needs."""
        return {"PATH": os.defpath}

    def wrong_order(self) -> Order:
        """A name that leads out of the folder."""
        return replace(self.order("ddddddddd5"), name="../elsewhere")

    def there(self, cluster: str = CLUSTER) -> int:
        """Machines of which a process lives."""
        homes = [path for path in (self.folder / "state").glob("*") if path.is_dir()]
        return sum(bool(processes.marked(str(home))) for home in homes)

    def close(self) -> None:
        """Nothing is left."""
        for home in (self.folder / "state").glob("*"):
            for pid in processes.marked(str(home)):
                processes.tell(pid, signal.SIGKILL)


class HetznerRig(Rig):
    """Real hcloud over HTTP to a double of the API."""

    kind = "hetzner"
    can = frozenset(Trouble) - {Trouble.NOTICE}
    type, region = "cx33", "nbg1"
    secrets = (SECRET,)

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.double = HetznerDouble(SECRET)
        self._token = SECRET

    def options(self) -> Mapping[str, object]:
        """The token by reference."""
        return {"base_url": self.double.base_url, "token_env": "A_VARIABLE", "answer_within_s": self.patience_s}

    def environ(self) -> Mapping[str, str]:
        """With the token."""
        return {"A_VARIABLE": self._token}

    def there(self, cluster: str = CLUSTER) -> int:
        """Servers with the label."""
        return sum(s["labels"].get("mcpfleet-cluster") == cluster for s in self.double.books.servers.values())

    def make(self, trouble: Trouble, machine: Machine | None = None) -> None:
        """By the double."""
        books = self.double.books
        match trouble:
            case Trouble.LOST:
                self.double.lose_answer(hetzner_double.CREATE)
            case Trouble.LATE_LISTS:
                books.lag(True)
            case Trouble.BUSY:
                self.double.fail(hetzner_double.CREATE, "rate_limit_exceeded", 429, retry_after_s=7)
            case Trouble.BROKEN:
                for operation in hetzner_double.OPERATIONS:
                    self.double.fail(operation, "server_error", 500)
            case Trouble.SILENT:
                self.double.http.meet(hetzner_double.CREATE, Fault(is_carried_out=True, hangs=True), MANY)
            case Trouble.EMPTY:
                books.out_of_stock.add((self.type, self.region))
            case Trouble.QUOTA:
                books.limit = 0
            case Trouble.REFUSED:
                self.double.turn_away()

    def end(self, trouble: Trouble) -> None:
        """All is well."""
        self.double.books.lag(False)
        self.double.http.forgive()

    def close(self) -> None:
        """Whoever hangs is let go."""
        self.double.close()


EC2_SAYS = {
    Trouble.BUSY: ("RequestLimitExceeded", 503),
    Trouble.BROKEN: ("InternalError", 500),
    Trouble.EMPTY: ("InsufficientInstanceCapacity", 500),
    Trouble.QUOTA: ("VcpuLimitExceeded", 400),
    Trouble.REFUSED: ("UnauthorizedOperation", 403),
}


class Ec2Rig(Rig):
    """Real boto3 over HTTP to moto, behind a front that can go wrong."""

    kind = "ec2"
    can = frozenset(Trouble)
    type, region = "t3.medium", "eu-central-1"
    secrets = (SECRET, f"{SECRET}-session")

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._moto_url: str = request.getfixturevalue("moto_url")
        self.front = Ec2Front(self._moto_url)
        self.front.words = " ".join(self.secrets)  # worse than EC2: who prints what it says prints the keys

    def options(self) -> Mapping[str, object]:
        """Keys by reference."""
        return {
            "regions": ["eu-central-1", "eu-west-1"],
            "endpoint_url": self.front.http.url,
            "images": {"eu-central-1": "ami-12c6146b"},
            "prices": {"t3.medium": 0.04},
            "eur_per_usd": 0.9,
            "access_key_env": "A",
            "secret_key_env": "B",
            "session_token_env": "C",
            "answer_within_s": self.patience_s,
        }

    def environ(self) -> Mapping[str, str]:
        """With the keys."""
        return {"A": "not-a-key", "B": SECRET, "C": f"{SECRET}-session"}

    def there(self, cluster: str = CLUSTER) -> int:
        """Instances that live, as moto itself says."""
        return len(living(self._moto_url, cluster))

    def make(self, trouble: Trouble, machine: Machine | None = None) -> None:
        """By the front."""
        match trouble:
            case Trouble.LOST:
                self.front.http.meet(ec2_front.RUN, Fault(is_carried_out=True))
            case Trouble.LATE_LISTS:
                self.front.lag(True)
            case Trouble.SILENT:
                self.front.http.meet(ec2_front.RUN, Fault(is_carried_out=True, hangs=True), MANY)
            case Trouble.NOTICE:
                assert machine is not None
                self.front.mark(machine.id.partition("/")[2])
            case _:
                code, status = EC2_SAYS[trouble]
                is_of_orders = trouble in {Trouble.BUSY, Trouble.EMPTY, Trouble.QUOTA}
                for operation in (ec2_front.RUN,) if is_of_orders else ec2_front.OPERATIONS:
                    self.front.fail(operation, code, status, times=MANY, retry_after_s=7)

    def end(self, trouble: Trouble) -> None:
        """All is well."""
        self.front.lag(False)
        self.front.http.forgive()

    def close(self) -> None:
        """Whoever hangs is let go, and moto, which serves all tests, forgets."""
        self.front.close()
        ours = [each for cluster in (CLUSTER, "neighbour") for each in living(self._moto_url, cluster)]
        if ours:
            moto_client(self._moto_url).terminate_instances(InstanceIds=ours)

"""Every cloud provider keeps the promises of the suite: a new one is a new line here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from orchestrator.autoscaler.cloud.provider import CloudProvider
from tests.contract.cloud_rigs import Ec2Rig, HetznerRig, LocalProcessRig, Rig, StaticRig
from tests.contract.cloud_suite import CloudSuite
from tests.contract.libcloud_rigs import DigitalOceanRig, LinodeRig, VultrRig
from tests.contract.local_vps_rig import LocalVpsRig
from tests.contract.shelf_rig import ShelfRig

RIGS: tuple[type[Rig], ...] = (
    StaticRig,
    LocalProcessRig,
    HetznerRig,
    LocalVpsRig,
    Ec2Rig,
    DigitalOceanRig,
    LinodeRig,
    VultrRig,
    ShelfRig,
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test for each provider whose rig can make the troubles that it needs."""
    needed = getattr(metafunc.function, "needs", frozenset())
    if "rig" in metafunc.fixturenames:
        able = [rig for rig in RIGS if needed <= rig.can]
        needs = {rig: pytest.mark.live(*rig.live) for rig in able if hasattr(rig, "live")}
        marked = [pytest.param(rig, id=rig.kind, marks=needs.get(rig, ())) for rig in able]
        metafunc.parametrize("rig", marked, indirect=True)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The provider under test, with its other side."""
    made: Rig = request.param(request)
    yield made
    made.close()


@pytest.fixture
async def cloud(rig: Rig) -> AsyncIterator[CloudProvider]:
    """Opened as an orchestrator does."""
    opened = rig.open()
    yield opened
    await opened.close()


class TestEveryCloud(CloudSuite):
    """The suite."""

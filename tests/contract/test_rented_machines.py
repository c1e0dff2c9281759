"""The clouds of `make vps-demo`: what is ordered over HTTP with a vendor's library boots on this host, and ends.

The image is a static busybox, so that this costs seconds; the demo has the rest of the circle.
"""

from __future__ import annotations

import asyncio
import secrets
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.nspawn import network
from orchestrator.autoscaler.cloud.nspawn.seed import SEED
from orchestrator.autoscaler.cloud.plugins import open_provider
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Order, Power, ProviderConfig
from orchestrator.testing.waiting import until
from tests.vps.api import Api
from tests.vps.centre import DataCentre, sweep
from tests.vps.ec2_api import Ec2Api
from tests.vps.ground import tiny_image
from tests.vps.hetzner_api import HetznerApi

pytestmark = pytest.mark.live("root", "nspawn", "busybox")

CLUSTER = "ours"
USER_DATA = "#cloud-config\n{}\n"
WITHIN_S = 60.0


@asynccontextmanager
async def rented(kind: type[HetznerApi | Ec2Api], folder: Path) -> AsyncIterator[tuple[Api, CloudProvider, Order]]:
    """An API in front of this host, the provider that speaks to it, and an order that it takes."""
    owner = f"t{secrets.token_hex(2)}"
    async with AsyncExitStack() as closing:  # each end before what it ends: a beginning that fails leaves a part
        closing.push_async_callback(network.unlay, owner)
        wire = await network.laid(owner, None, secrets.randbelow)
        closing.push_async_callback(sweep, folder / "state")
        centre = DataCentre(folder / "state", {"tiny": tiny_image(folder / "tiny")}, wire, 2)
        closing.push_async_callback(centre.close)
        api = kind(centre, "tiny", folder)
        closing.push_async_callback(api.close)
        account = api.account()
        options = {key: value for key, value in account.options.items() if key != "kind"}
        cloud = open_provider(
            ProviderConfig("cloud", str(account.options["kind"]), options, folder / "none", account.environ)
        )
        closing.push_async_callback(cloud.close)
        words = {key: str(value) for key, value in account.rung.items()}
        yield api, cloud, Order("aaaaaaaaa2", "web-a", CLUSTER, "web", user_data=USER_DATA, **words)


async def seen(cloud: CloudProvider, power: Power) -> list[Machine]:
    """What the provider lists in this state."""
    return [machine for machine in await cloud.machines(CLUSTER) if machine.power is power]


def asked(address: str) -> str:
    """Its web server says its name; empty while it says nothing."""
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@pytest.mark.parametrize("kind", [HetznerApi, Ec2Api])
async def test_what_is_ordered_over_http_boots_and_ends(kind: type[HetznerApi | Ec2Api], tmp_path: Path) -> None:
    """At the address that the API told, with the user data that the API was told; and it leaves no trace."""
    async with rented(kind, tmp_path) as (api, cloud, order):
        made = await cloud.create(order)
        assert made.address
        address = made.address
        assert (await until(lambda: asyncio.to_thread(asked, address), WITHIN_S)).strip() == order.name
        await until(lambda: seen(cloud, Power.RUNNING), WITHIN_S)
        (there,) = await api.centre.machines()
        assert (tmp_path / "state/machines" / there.id / "upper" / SEED / "user-data").read_text() == USER_DATA
        assert len(await api.left()) == 1
        assert {"processes", "namespaces", "cables", "control groups", "mounts", "folders"} <= api.centre.left().keys()
        await cloud.terminate(made.id)
        await until(lambda: is_over(api, cloud, made), WITHIN_S)
        await until(lambda: not api.centre.left(), WITHIN_S)  # its record goes before its files do


async def is_over(api: Api, cloud: CloudProvider, made: Machine) -> bool:
    """For the provider, for the API and for the host."""
    return await cloud.machine(made.id) is None and not await api.left() and not await api.centre.machines()

"""DigitalOcean through apache-libcloud. Names of droplets are not unique: see `intents.py`.

Tags stand in the order itself: a droplet is never there without them.
Source: https://docs.digitalocean.com/reference/api/, and libcloud's driver for version 2 of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.autoscaler.cloud.libcloud_base import (
    LibcloudOptions,
    Offer,
    epoch_s,
    image,
    location,
    of_tags,
    open_libcloud,
    size,
    whole,
)
from orchestrator.autoscaler.cloud.libcloud_wire import Dialect, Form
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Order, Power, ProviderConfig

POWER = {"new": Power.PENDING, "off": Power.STOPPED, "archive": Power.STOPPED}
"""Any other status counts as running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitalOceanOptions(LibcloudOptions):
    """`kind = "digitalocean"`.

    Attributes:
        vpc: id of the private network; the region's default one where it is empty.
        has_ipv6: free.
    """

    vpc: str = ""
    has_ipv6: bool = True


class DigitalOcean:
    """Satisfies `Vendor`."""

    title = "DigitalOcean"
    base_url = "https://api.digitalocean.com"
    billing_s = 60.0
    """By the second, a minute at least. Source: https://docs.digitalocean.com/products/droplets/details/pricing/."""
    has_unique_names = False
    tag_chars_most = 255
    dialect = Dialect(
        driver="libcloud.compute.drivers.digitalocean:DigitalOcean_v2_NodeDriver",
        quota=re.compile(r"droplet limit|currently restricted|limit.*exceeded", re.IGNORECASE),
        capacity=re.compile(r"(size|region) is (not available|unavailable)|not available in (this|the)", re.IGNORECASE),
    )

    def __init__(self, options: DigitalOceanOptions) -> None:
        self._options = options

    def is_id(self, text: str) -> bool:
        """A number."""
        return text.isdecimal()

    def beside(self, order: Order, tagged: list[str]) -> Form:  # noqa: ARG002 - as every vendor's
        """The network, for which the driver has an older word only; a snapshot's number, which it makes a text."""
        wanted = self._image(order)
        network = {"vpc_uuid": self._options.vpc} if self._options.vpc else {}
        return network | ({"image": int(wanted)} if wanted.isdecimal() else {})

    def order(self, driver: Any, order: Order, tagged: list[str]) -> Form:  # noqa: ANN401 - libcloud has no types
        """A droplet."""
        keys = [int(key) if key.isdecimal() else key for key in self._options.ssh_keys]
        made: Form = driver.create_node(
            name=order.name,
            size=size(driver, order.type),
            image=image(driver, self._image(order)),
            location=location(driver, order.region),
            ex_create_attr={"tags": tagged, "ssh_keys": keys, "ipv6": self._options.has_ipv6},
            ex_user_data=order.user_data or None,
        )
        return made

    def listed(self, driver: Any) -> list[Form]:  # noqa: ANN401
        """Of all the account: the driver has no filter."""
        return whole(driver, "droplets", driver.list_nodes)

    def one(self, driver: Any, machine_id: str) -> Form:  # noqa: ANN401
        """The driver has no such question, its connection has."""
        found: Form = driver.connection.request(f"/v2/droplets/{machine_id}").object["droplet"]
        return found

    def machine(self, form: Form, now_s: float) -> Machine:  # noqa: ARG002 - as every vendor's
        """As the API shows it."""
        return Machine(
            id=str(form["id"]),
            name=form["name"],
            power=POWER.get(form["status"], Power.RUNNING),
            address=self._address(form["networks"]),
            type=form["size_slug"],
            region=form["region"]["slug"],
            created_at=epoch_s(form["created_at"]),
            **of_tags(form),
        )

    def offers(self, driver: Any) -> Iterator[Offer]:  # noqa: ANN401
        """Sizes, where they can be had."""
        for each in whole(driver, "sizes", driver.list_sizes):
            for region in each["regions"] if each.get("available", True) else ():
                yield Offer(each["slug"], region, float(each["price_hourly"]), each["vcpus"], each["memory"])

    def _image(self, order: Order) -> str:
        return order.image or self._options.image or "debian-12-x64"

    def _address(self, networks: Form) -> str | None:
        """None: it has none yet."""
        found = {net["type"]: net["ip_address"] for net in networks.get("v4") or []}
        return found.get(self._options.address)


def open_digitalocean(config: ProviderConfig) -> CloudProvider:
    """Kind `digitalocean`."""
    return open_libcloud(config, DigitalOceanOptions, DigitalOcean)

"""Linode (Akamai) through apache-libcloud. A label is unique in its account: that is the idempotency.

An order whose answer was lost is refused the second time, and the machine that has the label is looked up;
its tag says whether it is of the same claim.
Source: https://techdocs.akamai.com/linode-api/reference/api, and libcloud's driver for version 4 of it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from orchestrator.autoscaler.cloud.libcloud_base import (
    HOUR_S,
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

POWER = {
    "provisioning": Power.PENDING,
    "booting": Power.PENDING,
    "rebuilding": Power.PENDING,
    "restoring": Power.PENDING,
    "cloning": Power.PENDING,
    "shutting_down": Power.STOPPED,
    "offline": Power.STOPPED,
    "stopped": Power.STOPPED,
    "deleting": Power.ENDING,
}
"""Any other status counts as running."""
FIRST_BOOT_S = 600.0
"""For so long one that is offline has not been started yet: between its disk and its boot it shows as that."""
PASSWORD_BYTES = 32
PRIVATE = ip_network("192.168.128.0/17")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinodeOptions(LibcloudOptions):
    """`kind = "linode"`.

    Attributes:
        firewall: number of the Cloud Firewall.
    """

    firewall: int | None = None


class Linode:
    """Satisfies `Vendor`."""

    title = "Linode"
    base_url = "https://api.linode.com"
    billing_s = HOUR_S
    has_unique_names = True
    tag_chars_most = 50
    dialect = Dialect(
        driver="libcloud.compute.drivers.linode:LinodeNodeDriverV4",
        quota=re.compile(r"account limit reached|limit.*(reached|exceeded)", re.IGNORECASE),
        capacity=re.compile(r"capacity|no open slots|(type|plan|region).*(not available|unavailable)", re.IGNORECASE),
        taken=re.compile(r"label must be unique", re.IGNORECASE),
        page={"page_size": 500},
        readings=("_to_node", "_to_size", "_to_location"),
    )

    def __init__(self, options: LinodeOptions) -> None:
        self._options = options

    def is_id(self, text: str) -> bool:
        """A number."""
        return text.isdecimal()

    def beside(self, order: Order, tagged: list[str]) -> Form:  # noqa: ARG002 - as every vendor's
        """The firewall."""
        return {} if self._options.firewall is None else {"firewall_id": self._options.firewall}

    def order(self, driver: Any, order: Order, tagged: list[str]) -> Form:  # noqa: ANN401 - libcloud has no types
        """An instance. The driver encodes the user data, whatever its docstring says."""
        made: Form = driver.create_node(
            location(driver, order.region),
            order.name,
            size(driver, order.type),
            image(driver, order.image or self._options.image or "linode/debian12"),
            root_pass=secrets.token_urlsafe(PASSWORD_BYTES),  # one is asked for; nobody is to know it
            ex_authorized_keys=list(self._options.ssh_keys),
            ex_tags=tagged,
            ex_private_ip=self._options.address == "private",
            ex_userdata=order.user_data or None,
        )
        return made

    def listed(self, driver: Any) -> list[Form]:  # noqa: ANN401
        """Of all the account: the driver has no filter."""
        return whole(driver, "data", driver.list_nodes)

    def one(self, driver: Any, machine_id: str) -> Form:  # noqa: ANN401
        """By its number."""
        found: Form = driver.ex_get_node(machine_id)
        return found

    def machine(self, form: Form, now_s: float) -> Machine:
        """As the API shows it."""
        created_at = epoch_s(form["created"])
        is_before_boot = form["status"] == "offline" and now_s - created_at < FIRST_BOOT_S
        wants_private = self._options.address == "private"
        fitting = (ip for ip in form["ipv4"] if (ip_address(ip) in PRIVATE) is wants_private)
        return Machine(
            id=str(form["id"]),
            name=form["label"],
            power=Power.PENDING if is_before_boot else POWER.get(form["status"], Power.RUNNING),
            address=next(fitting, None),
            type=form["type"],
            region=form["region"],
            created_at=created_at,
            **of_tags(form),
        )

    def offers(self, driver: Any) -> Iterator[Offer]:  # noqa: ANN401
        """Every type in every region that has machines and has not run out of it: the driver does not ask for that."""
        rows = whole(driver, "data", lambda: driver._paginated_request("/v4/regions/availability", "data"))  # noqa: SLF001
        absent = {(row["plan"], row["region"]) for row in rows if not row["available"]}
        places = [
            place["id"] for place in whole(driver, "data", driver.list_locations) if "Linodes" in place["capabilities"]
        ]
        for each in whole(driver, "data", driver.list_sizes):
            dearer = {price["id"]: price["hourly"] for price in each.get("region_prices") or []}
            for place in (place for place in places if (each["id"], place) not in absent):
                usd_h = dearer.get(place) or each["price"]["hourly"]
                yield Offer(each["id"], place, float(usd_h), each["vcpus"], each["memory"])


def open_linode(config: ProviderConfig) -> CloudProvider:
    """Kind `linode`."""
    return open_libcloud(config, LinodeOptions, Linode)

"""Vultr through apache-libcloud. Labels of instances are not unique: see `intents.py`.

The driver sends one tag in a field that the API has dropped for `tags`, so the tags go beside what it sends.
Source: https://www.vultr.com/api/, and libcloud's driver for version 2 of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.autoscaler.cloud.libcloud_base import (
    HOUR_S,
    LibcloudOptions,
    Offer,
    epoch_s,
    location,
    of_tags,
    open_libcloud,
    size,
    whole,
)
from orchestrator.autoscaler.cloud.libcloud_wire import Dialect, Form
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Order, Power, ProviderConfig

DEBIAN_12 = "2136"
HOURS_PER_MONTH = 730.0
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NO_ADDRESS = frozenset({"", "0.0.0.0"})  # noqa: S104 - what the API shows before there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class VultrOptions(LibcloudOptions):
    """`kind = "vultr"`.

    Attributes:
        vpc: id of the private network.
        firewall: id of the firewall group.
        has_ipv6: free.
    """

    vpc: str = ""
    firewall: str = ""
    has_ipv6: bool = True


class Vultr:
    """Satisfies `Vendor`."""

    title = "Vultr"
    base_url = "https://api.vultr.com"
    billing_s = HOUR_S
    has_unique_names = False
    tag_chars_most = 255
    dialect = Dialect(
        driver="libcloud.compute.drivers.vultr:VultrNodeDriverV2",
        quota=re.compile(r"maximum (number|monthly)|limit (raised|reached|exceeded)|reached the", re.IGNORECASE),
        capacity=re.compile(r"(plan|location|region).*(not available|unavailable|sold out)", re.IGNORECASE),
    )

    def __init__(self, options: VultrOptions) -> None:
        self._options = options

    def is_id(self, text: str) -> bool:
        """A UUID."""
        return ID.fullmatch(text) is not None

    def beside(self, order: Order, tagged: list[str]) -> Form:
        """All tags; the system by its number, which the driver makes a text; the network under its present name."""
        wanted = order.image or self._options.image or DEBIAN_12
        system = {"os_id": int(wanted)} if wanted.isdecimal() else {"snapshot_id": wanted}
        network = {"attach_vpc": [self._options.vpc]} if self._options.vpc else {}
        return {"tags": tagged, **system, **network}

    def order(self, driver: Any, order: Order, tagged: list[str]) -> Form:  # noqa: ANN401, ARG002 - see `beside`
        """An instance. The driver encodes the user data."""
        made: Form = driver.create_node(
            name=order.name,
            size=size(driver, order.type),
            location=location(driver, order.region),
            ex_ssh_key_ids=list(self._options.ssh_keys),
            ex_enable_ipv6=self._options.has_ipv6,
            ex_userdata=order.user_data or None,
            ex_hostname=order.name,
            ex_firewall_group_id=self._options.firewall or None,
        )
        return made

    def listed(self, driver: Any) -> list[Form]:  # noqa: ANN401
        """Of all the account, but for bare metal."""
        return whole(driver, "instances", lambda: driver.list_nodes(ex_list_bare_metals=False))

    def one(self, driver: Any, machine_id: str) -> Form:  # noqa: ANN401
        """By its id."""
        found: Form = driver.ex_get_node(machine_id)
        return found

    def machine(self, form: Form, now_s: float) -> Machine:  # noqa: ARG002 - as every vendor's
        """As the API shows it."""
        address = form["main_ip"] if self._options.address == "public" else form["internal_ip"]
        return Machine(
            id=form["id"],
            name=form["label"],
            power=_power(form),
            address=None if address in NO_ADDRESS else address,
            type=form["plan"],
            region=form["region"],
            created_at=epoch_s(form["date_created"]),
            **of_tags(form),
        )

    def offers(self, driver: Any) -> Iterator[Offer]:  # noqa: ANN401
        """Plans, where they can be had."""
        for each in whole(driver, "plans", lambda: driver.list_sizes(ex_list_bare_metals=False)):
            usd_h = each.get("hourly_cost") or each["monthly_cost"] / HOURS_PER_MONTH
            for region in each["locations"]:
                yield Offer(each["id"], region, float(usd_h), each["vcpu_count"], each["ram"])


def open_vultr(config: ProviderConfig) -> CloudProvider:
    """Kind `vultr`."""
    return open_libcloud(config, VultrOptions, Vultr)


def _power(form: Form) -> Power:
    """Three fields say it. One that is being installed is switched off at times: that is not stopped."""
    if form["status"] == "pending":
        return Power.PENDING
    if form["status"] in {"suspended", "halted"}:
        return Power.STOPPED
    if form["power_status"] != "stopped":
        return Power.RUNNING
    return Power.STOPPED if form["server_status"] == "ok" else Power.PENDING

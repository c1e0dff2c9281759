"""Hetzner Cloud through hcloud. A server's name is unique in its project: that is the idempotency.

An order whose answer was lost is refused the second time with `uniqueness_error`, and the server that has
the name is looked up; its label says whether it is of the same claim. Hetzner has no spot machines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

from orchestrator.autoscaler.cloud import tags
from orchestrator.autoscaler.cloud.blocking import BlockingProvider
from orchestrator.autoscaler.cloud.errors import CloudDown, OrderRefused
from orchestrator.autoscaler.cloud.hetzner_wire import HetznerWire
from orchestrator.autoscaler.cloud.options import Span, needed, read_options, secret, vendor
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Order, Power, Product, ProviderConfig
from orchestrator.autoscaler.cloud.threads import READ_S

if TYPE_CHECKING:
    from hcloud.server_types import BoundServerType
    from hcloud.servers import BoundServer

GIB_BYTES = 1024**3
BILLING_S = 3600.0
"""By the begun hour. Source: https://docs.hetzner.com/cloud/billing/faq/."""
POWER = {
    "initializing": Power.PENDING,
    "starting": Power.PENDING,
    "rebuilding": Power.PENDING,
    "stopping": Power.STOPPED,
    "off": Power.STOPPED,
    "deleting": Power.ENDING,
}
"""Any other status counts as running: a machine is never taken for gone because of a new word."""


@dataclass(frozen=True, slots=True)
class HetznerOptions:
    """`[providers.<name>]` with `kind = "hetzner"`.

    Attributes:
        token_env: the variable with the project's API token, read and write.
        token_file: or the file with it.
        base_url: of the API.
        image: where a rung names none; a name or, for snapshots, a number.
        ssh_keys: names of keys in the project, put onto new servers.
        networks: numbers of private networks.
        firewalls: numbers of firewalls.
        has_ipv4: costs extra, see the price list.
        has_ipv6: free.
        address: where a server is reached from here.
        answer_within_s: of one request; an order whose answer takes longer is asked for again.
        price: what counts as its cost; gross includes the tax of the account's country.
        billing_s: steps in which a server is paid for; a rehearsal that lasts minutes has shorter ones.
    """

    token_env: str = ""
    token_file: str = ""
    base_url: str = "https://api.hetzner.cloud/v1"
    image: str = "debian-12"
    ssh_keys: tuple[str, ...] = ()
    networks: tuple[int, ...] = ()
    firewalls: tuple[int, ...] = ()
    has_ipv4: bool = True
    has_ipv6: bool = True
    address: Literal["public", "private"] = "public"
    price: Literal["net", "gross"] = "gross"
    billing_s: Span = BILLING_S
    answer_within_s: Span = READ_S


class HetznerProvider(BlockingProvider):
    """Satisfies `CloudProvider`."""

    def __init__(self, name: str, options: HetznerOptions, token: SecretStr) -> None:
        super().__init__(name)
        self._options = options
        self._wire = HetznerWire(name, options.base_url, token, options.answer_within_s)

    async def close(self) -> None:
        """Servers stay."""
        await super().close()
        self._wire.close()

    def _create(self, order: Order) -> Machine:
        if order.is_spot:
            raise OrderRefused(self._name, "Hetzner has no spot machines")
        with self._wire.translated(order) as client:
            server = self._wire.order(client, order, self._options)
        if server is None:
            return self._named(order)
        return self._machine(server)

    def _named(self, order: Order) -> Machine:
        """The server that has this name already."""
        with self._wire.translated() as client:
            found = client.servers.get_all(name=order.name)
        if not found:
            raise CloudDown(self._name, f"the name {order.name} is in use, and no list shows by whom yet")
        machine = self._machine(found[0])
        if machine.claim != order.claim or (found[0].labels or {}).get(tags.CLUSTER) != order.cluster:
            raise OrderRefused(self._name, f"the name {order.name} belongs to a server of somebody else, {machine.id}")
        return machine

    def _listed(self, cluster: str) -> list[Machine]:
        with self._wire.translated() as client:
            found = client.servers.get_all(label_selector=f"{tags.CLUSTER}={cluster}")
        return [self._machine(server) for server in found]

    def _one(self, machine_id: str) -> Machine | None:
        if not machine_id.isdecimal():
            return None
        with self._wire.translated() as client:
            server = self._wire.unless_gone(lambda: client.servers.get_by_id(int(machine_id)))
        return None if server is None else self._machine(server)

    def _end(self, machine_id: str) -> None:
        if machine_id.isdecimal():
            with self._wire.translated() as client:
                self._wire.unless_gone(lambda: self._wire.delete(client, int(machine_id)))

    def _products(self) -> list[Product]:
        with self._wire.translated() as client:
            return [product for each in client.server_types.get_all() for product in self._of_type(each)]

    def _of_type(self, kind: BoundServerType) -> list[Product]:
        """One for each location that has a price and has not run out."""
        absent = {place.location.name for place in kind.locations or [] if not place.available}
        return [
            Product(
                type=kind.name or "",
                region=price["location"],
                is_spot=False,
                price_eur_h=float(price["price_hourly"][self._options.price]),
                billing_s=self._options.billing_s,
                cpus=kind.cores or 0,
                memory_bytes=int((kind.memory or 0) * GIB_BYTES),
            )
            for price in kind.prices or []
            if price["location"] not in absent
        ]

    def _machine(self, server: BoundServer) -> Machine:
        labels = server.labels or {}
        return Machine(
            id=str(server.id),
            name=server.name or "",
            claim=labels.get(tags.CLAIM, ""),
            power=POWER.get(server.status or "", Power.RUNNING),
            address=self._address(server),
            type=(server.server_type and server.server_type.name) or "",
            region=(server.location and server.location.name) or "",
            created_at=server.created.timestamp() if server.created else 0.0,
            expires_at=tags.expiry(labels),
        )

    def _address(self, server: BoundServer) -> str | None:
        """None: it has none yet."""
        private = next((net.ip for net in server.private_net or [] if net.ip), None)
        if self._options.address == "private":
            return private
        public = server.public_net
        if public is not None and public.ipv4 is not None:
            return public.ipv4.ip
        if public is not None and public.ipv6 is not None and public.ipv6.ip:
            return f"{public.ipv6.ip.partition('/')[0]}1"  # its network ends in ::, its own address in ::1
        return private


def open_hetzner(config: ProviderConfig) -> CloudProvider:
    """Kind `hetzner`."""
    options = read_options(HetznerOptions, config)
    token = needed(config, "token", secret(config, "token", variable=options.token_env, file=options.token_file))
    vendor(config, "hcloud", extra="hetzner")
    return HetznerProvider(config.name, options, token)

"""Clouds through apache-libcloud: what all of them have in common. What differs, a `Vendor` says.

A claim is found again by its tag. Where the vendor keeps names unique, that is the idempotency; elsewhere it
is a look before the order and a record of what was sent (`intents.py`). None of them has spot machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeVar

from pydantic import SecretStr

from orchestrator.autoscaler.cloud import tags
from orchestrator.autoscaler.cloud.blocking import BlockingProvider
from orchestrator.autoscaler.cloud.errors import (
    CloudDown,
    CredentialsRefused,
    OrderRefused,
    OutOfCapacity,
    QuotaReached,
)
from orchestrator.autoscaler.cloud.intents import Intent, Intents
from orchestrator.autoscaler.cloud.libcloud_wire import Declined, Dialect, Form, LibcloudWire, Taken
from orchestrator.autoscaler.cloud.options import Span, needed, read_options, secret
from orchestrator.autoscaler.cloud.options import vendor as library_of
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Order, Product, ProviderConfig
from orchestrator.autoscaler.cloud.threads import READ_S
from tasks.clock import Clock, SystemClock
from tasks.errors import SettingsError

HOUR_S = 3600.0
MIB_BYTES = 1024**2
REFUSALS = (Declined, OutOfCapacity, QuotaReached, CredentialsRefused, OrderRefused)
"""Of an order, after which for certain there is no machine of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibcloudOptions:
    """What every table of these kinds may have; a vendor adds its own.

    Attributes:
        token_env: the variable with the account's API token.
        token_file: or the file with it.
        base_url: of the API; the vendor's where it is empty.
        image: where a rung names none; the vendor's Debian 12 where it is empty.
        ssh_keys: put onto new machines, in the vendor's own form.
        address: where a machine is reached from here.
        eur_per_usd: prices are in US dollars; without it they count as not known.
        answer_within_s: of one request; an order whose answer takes longer is asked for again.
    """

    token_env: str = ""
    token_file: str = ""
    base_url: str = ""
    image: str = ""
    ssh_keys: tuple[str, ...] = ()
    address: Literal["public", "private"] = "public"
    eur_per_usd: float | None = None
    answer_within_s: Span = READ_S


Options = TypeVar("Options", bound=LibcloudOptions)


@dataclass(frozen=True, slots=True)
class Offer:
    """One size in one region."""

    type: str
    region: str
    usd_h: float
    cpus: int
    memory_mib: float


class Vendor(Protocol):
    """One vendor's way, over its driver; forms are those of its API."""

    title: str
    dialect: Dialect
    base_url: str
    billing_s: float
    has_unique_names: bool
    tag_chars_most: int

    def is_id(self, text: str) -> bool:
        """It may be a machine's."""
        ...

    def beside(self, order: Order, tagged: list[str]) -> Form:
        """What the driver's `create_node` has no argument for, or sends as another type."""
        ...

    def order(self, driver: Any, order: Order, tagged: list[str]) -> Form:  # noqa: ANN401 - libcloud has no types
        """Order it."""
        ...

    def listed(self, driver: Any) -> list[Form]:  # noqa: ANN401
        """Every machine of the account."""
        ...

    def one(self, driver: Any, machine_id: str) -> Form:  # noqa: ANN401
        """One machine."""
        ...

    def machine(self, form: Form, now_s: float) -> Machine:
        """All but what its tags say."""
        ...

    def offers(self, driver: Any) -> Iterable[Offer]:  # noqa: ANN401
        """The catalogue."""
        ...


class LibcloudProvider(BlockingProvider):
    """Satisfies `CloudProvider`."""

    def __init__(
        self, name: str, vendor: Vendor, options: LibcloudOptions, token: SecretStr, *, intents: Intents, clock: Clock
    ) -> None:
        super().__init__(name)
        self._vendor = vendor
        self._eur_per_usd = options.eur_per_usd
        self._intents = intents
        self._clock = clock
        base_url = options.base_url or vendor.base_url
        self._wire = LibcloudWire(name, vendor.dialect, base_url, token, options.answer_within_s)

    def _create(self, order: Order) -> Machine:
        if order.is_spot:
            raise OrderRefused(self._name, f"{self._vendor.title} has no spot machines")
        if not (order.type and order.region):
            raise OrderRefused(self._name, f"at {self._vendor.title} a rung names a type and a region")
        if self._vendor.has_unique_names:
            return self._create_by_name(order)
        with self._intents.held(order.claim) as intent:
            return self._made(order, intent) or self._send(order, intent)

    def _create_by_name(self, order: Order) -> Machine:
        """The second order of a name is refused."""
        try:
            return self._ordered(order)
        except Taken:
            named = self._named(order)
        if named is None:
            raise CloudDown(self._name, f"the name {order.name} is in use, and no list shows by whom yet")
        cluster, machine = named
        if (machine.claim, cluster) != (order.claim, order.cluster):
            raise OrderRefused(self._name, f"the name {order.name} belongs to a machine of somebody else, {machine.id}")
        return machine

    def _named(self, order: Order) -> tuple[str | None, Machine] | None:
        """Which machine has the name, with its cluster. Ours are read first, as in `_listed`."""
        with self._wire.asked() as driver:
            for form in sorted(self._vendor.listed(driver), key=lambda form: _cluster(form) != order.cluster):
                machine = self._machine(form)
                if machine.name == order.name:
                    return _cluster(form), machine
        return None

    def _made(self, order: Order, intent: Intent) -> Machine | None:
        """The machine that earlier orders of this claim became."""
        if intent.machine_id:
            found = self._one(intent.machine_id)
            if found is not None:
                return found
        ours = [machine for machine in self._listed(order.cluster) if machine.claim == order.claim]
        # the same one for everybody who looks: reconciliation, too, keeps the oldest
        return min(ours, key=lambda machine: (machine.created_at, machine.id), default=None)

    def _send(self, order: Order, intent: Intent) -> Machine:
        intent.before_sending()
        try:
            machine = self._ordered(order)
        except REFUSALS:
            intent.not_carried_out()
            raise
        intent.carried_out(machine.id)
        return machine

    def _ordered(self, order: Order) -> Machine:
        tagged = [f"{key}:{value}" for key, value in tags.tags_of(order).items()]
        long = next((tag for tag in tagged if len(tag) > self._vendor.tag_chars_most), None)
        if long is not None:
            raise OrderRefused(
                self._name, f"the tag {long} has {len(long)} characters and {self._vendor.tag_chars_most} are taken"
            )
        with self._wire.asked(order, self._vendor.beside(order, tagged)) as driver:
            return self._machine(self._vendor.order(driver, order, tagged))

    def _listed(self, cluster: str) -> list[Machine]:
        """Others of the account are not read: one in a form that nobody knows must not hide ours."""
        with self._wire.asked() as driver:
            return [self._machine(form) for form in self._vendor.listed(driver) if _cluster(form) == cluster]

    def _one(self, machine_id: str) -> Machine | None:
        if not self._vendor.is_id(machine_id):
            return None
        return self._wire.unless_gone(lambda driver: self._machine(self._vendor.one(driver, machine_id)))

    def _end(self, machine_id: str) -> None:
        if self._vendor.is_id(machine_id):
            self._wire.unless_gone(lambda driver: driver.destroy_node(_node(driver, machine_id)))

    def _products(self) -> list[Product]:
        with self._wire.asked() as driver:
            return [self._product(offer) for offer in self._vendor.offers(driver)]

    def _product(self, offer: Offer) -> Product:
        return Product(
            type=offer.type,
            region=offer.region,
            is_spot=False,
            price_eur_h=None if self._eur_per_usd is None else offer.usd_h * self._eur_per_usd,
            billing_s=self._vendor.billing_s,
            cpus=offer.cpus,
            memory_bytes=int(offer.memory_mib * MIB_BYTES),
        )

    def _machine(self, form: Form) -> Machine:
        return self._vendor.machine(form, self._clock.wall_s())


def of_tags(form: Form) -> dict[str, Any]:
    """What its tags say, as fields of a `Machine`."""
    named = _tags(form)
    return {"claim": named.get(tags.CLAIM, ""), "expires_at": tags.expiry(named)}


def epoch_s(text: str) -> float:
    """Of an ISO date; without a zone it is UTC."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def whole(driver: Any, key: str, ask: Callable[[], list[Form]]) -> list[Form]:  # noqa: ANN401
    """Of all pages. The drivers take a page of another shape for an empty one, or for the end.

    Raises:
        KeyError: a page has no list under this key.
    """
    answers: list[object] = driver.connection.exchange.answers
    before = len(answers)
    found = ask()
    if not all(isinstance(answer, dict) and isinstance(answer.get(key), list) for answer in answers[before:]):
        raise KeyError(key)
    return found


def size(driver: Any, name: str) -> Any:  # noqa: ANN401
    """One of libcloud's by its name alone: the API knows the rest."""
    from libcloud.compute.base import NodeSize

    return NodeSize(id=name, name=name, ram=0, disk=0, bandwidth=0, price=0, driver=driver)


def location(driver: Any, name: str) -> Any:  # noqa: ANN401
    """Likewise."""
    from libcloud.compute.base import NodeLocation

    return NodeLocation(id=name, name=name, country="", driver=driver)


def image(driver: Any, name: str) -> Any:  # noqa: ANN401
    """Likewise. A number becomes text in it."""
    from libcloud.compute.base import NodeImage

    return NodeImage(id=name, name=name, driver=driver)


def open_libcloud(config: ProviderConfig, form: type[Options], made: Callable[[Options], Vendor]) -> CloudProvider:
    """A provider of this vendor. `made` gives the `Vendor` of the options."""
    options = read_options(form, config)
    token = needed(config, "token", secret(config, "token", variable=options.token_env, file=options.token_file))
    if options.eur_per_usd is not None and not options.eur_per_usd > 0:
        raise SettingsError(
            f"{config.place} eur_per_usd is {options.eur_per_usd:g}; write how many euros a dollar costs"
        )
    library_of(config, "libcloud", extra="libcloud")
    clock = SystemClock()
    intents = Intents(config.name, config.state_dir, clock)
    return LibcloudProvider(config.name, made(options), options, token, intents=intents, clock=clock)


def _tags(form: Form) -> Mapping[str, str]:
    pairs = (str(tag).partition(":") for tag in form.get("tags") or [])
    return {key: value for key, _, value in pairs}


def _cluster(form: Form) -> str | None:
    return _tags(form).get(tags.CLUSTER)


def _node(driver: Any, machine_id: str) -> Any:  # noqa: ANN401
    from libcloud.compute.base import Node
    from libcloud.compute.types import NodeState

    has_none: Any = ""  # Vultr's driver tells bare metal by the size
    return Node(machine_id, "", NodeState.UNKNOWN, [], [], driver, size=has_none)

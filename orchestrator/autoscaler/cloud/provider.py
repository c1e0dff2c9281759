"""What the autoscaler asks of a cloud: six questions, the same for every provider.

A provider is a plugin: an entry point of the group `mcpfleet.cloud` whose object is called with a
`ProviderConfig` and gives a `CloudProvider`. One suite in tests/contract says what each must do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Power(StrEnum):
    """What the cloud says of a machine. One that is gone is not listed."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    """Still there, often still paid for; it does no work and should be ended."""
    ENDING = "ending"


@dataclass(frozen=True, slots=True)
class Order:
    """One machine to be made.

    Attributes:
        claim: idempotency key: however often it is ordered, there is one machine of this claim.
        name: of the machine and its node; unique within the cluster.
        cluster: tag; `machines` gives those that have it.
        user_data: cloud-init, or for local providers the node's environment; holds no long-lived secret.
        environ: the node's settings, `MCPFLEET_NODE_*`, for providers that start the process themselves.
        expires_at: wall clock, as a tag: whoever finds it later than that may end it.
    """

    claim: str
    name: str
    cluster: str
    pool: str
    type: str = ""
    region: str = ""
    image: str = ""
    is_spot: bool = False
    user_data: str = field(default="", repr=False)  # both hold the one-time token: no log is to show it
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """The provider's own record."""

    id: str
    name: str
    claim: str
    """As its tag says; "" on a machine of this cluster that carries none."""
    power: Power
    address: str | None = None
    type: str = ""
    region: str = ""
    is_spot: bool = False
    created_at: float = 0.0
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Product:
    """One machine type that can be had."""

    type: str
    region: str
    is_spot: bool
    price_eur_h: float | None
    billing_s: float
    """What is paid for at least, and in steps of: 3600 by the hour, 1 by the second."""
    cpus: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Notice:
    """A machine will be taken away."""

    machine_id: str
    at: float
    """Wall clock; as good as now where the provider names no time."""


class CloudProvider(Protocol):
    """One account of one cloud. Raises only the errors of `errors.py`; every call ends within a minute."""

    async def create(self, order: Order) -> Machine:
        """The one machine of this claim, made now or earlier.

        Raises:
            OutOfCapacity, QuotaReached: not this type there now; the next rung may do.
            OrderRefused: it will never do; the ladder or the image is wrong.
            CredentialsRefused: the account does not let us.
            CloudDown: nobody knows whether it was made; ask again with the same order.
        """
        ...

    async def machines(self, cluster: str) -> list[Machine]:
        """Every machine with this tag that is not gone. May lag behind `create`."""
        ...

    async def machine(self, machine_id: str) -> Machine | None:
        """One machine; None once it is gone, or never was."""
        ...

    async def terminate(self, machine_id: str) -> None:
        """End it, however often it is said; one that is gone is no error."""
        ...

    async def catalog(self) -> list[Product]:
        """What can be had, and what it costs."""
        ...

    async def notices(self, cluster: str) -> list[Notice]:
        """Machines that will be taken away."""
        ...

    async def close(self) -> None:
        """Let go of connections. Machines stay."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One `[providers.<name>]` table of the pools file.

    Attributes:
        kind: the entry point.
        options: the rest of the table; a plugin refuses what it does not know.
        state_dir: a folder of its own, for providers whose machines are on this host.
        environ: for secrets by reference: an option `token_env = "HCLOUD_TOKEN"` or `token_file = "…"`.
        file: that holds the table, for messages.
    """

    name: str
    kind: str
    options: Mapping[str, object]
    state_dir: Path
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    file: Path | None = None

    @property
    def place(self) -> str:
        """The table, for messages."""
        return f"{self.file}: [providers.{self.name}]" if self.file else f"[providers.{self.name}]"


class OpenProvider(Protocol):
    """The object of an entry point."""

    def __call__(self, config: ProviderConfig) -> CloudProvider:
        """Make it; talks to nobody yet.

        Raises:
            SettingsError: an option is missing, unknown or wrong.
        """
        ...

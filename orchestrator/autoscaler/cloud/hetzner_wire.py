"""hcloud, held on a short lead: no retries of its own, time limits, and its errors in our words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from pydantic import SecretStr

from orchestrator.autoscaler.cloud import tags
from orchestrator.autoscaler.cloud.errors import (
    CloudDown,
    CredentialsRefused,
    OrderRefused,
    OutOfCapacity,
    QuotaReached,
)
from orchestrator.autoscaler.cloud.options import place_of, redacted
from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.autoscaler.cloud.threads import CONNECT_S, READ_S

if TYPE_CHECKING:
    import requests
    from hcloud import APIException, Client
    from hcloud.servers import BoundServer

T = TypeVar("T")
CREDENTIALS = frozenset({"unauthorized", "forbidden", "token_readonly"})
CAPACITY = frozenset({"resource_unavailable", "placement_error"})
QUOTA = frozenset({"resource_limit_exceeded"})
PASSING = frozenset(
    {"rate_limit_exceeded", "conflict", "locked", "maintenance", "timeout", "bad_gateway", "unavailable"}
    | {"server_error", "service_error", "internal_server_error", "protected", "unknown_error"}
)
"""Codes of the API. Source: https://docs.hetzner.cloud, Errors; an unknown one goes by its HTTP status."""
TAKEN, GONE = "uniqueness_error", "not_found"
CLIENT_ERROR, TOO_MANY, SERVER_ERROR = 400, 429, 500


class Wanted(Protocol):
    """What the operator's options say of every server."""

    @property
    def image(self) -> str:
        """Where the order names none."""

    @property
    def ssh_keys(self) -> tuple[str, ...]:
        """Names."""

    @property
    def networks(self) -> tuple[int, ...]:
        """Numbers."""

    @property
    def firewalls(self) -> tuple[int, ...]:
        """Numbers."""

    @property
    def has_ipv4(self) -> bool:
        """A public one."""

    @property
    def has_ipv6(self) -> bool:
        """A public one."""


class HetznerWire:
    """One project's API. Its methods block."""

    def __init__(self, provider: str, base_url: str, token: SecretStr, answer_within_s: float) -> None:
        from hcloud import Client

        self._provider = provider
        self._token = token
        self._last = threading.local()
        self._client = Client(
            token=token.get_secret_value(),
            api_endpoint=base_url.rstrip("/"),
            application_name="mcpfleet",
            timeout=(CONNECT_S, min(READ_S, answer_within_s)),
        )
        # no public option for either: its five retries would outlast every limit of ours, and hide Retry-After
        self._client._client._retry_max_retries = 0  # noqa: SLF001
        self._session = self._client._client._session  # noqa: SLF001
        self._session.hooks["response"].append(self._note)

    def close(self) -> None:
        """Let go of connections."""
        self._session.close()

    @contextmanager
    def translated(self, order: Order | None = None) -> Iterator[Client]:
        """The client; what it raises comes out in our words. With an order, a refusal is of that order."""
        import requests
        from hcloud import APIException, HCloudException

        try:
            yield self._client
        except APIException as error:
            raise self._in_our_words(error, order) from None  # the cause holds the whole exchange
        except (HCloudException, requests.RequestException) as error:
            raise CloudDown(self._provider, f"{type(error).__name__}: {self._said(error)}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # the library reads what it is answered without a look at its shape
            raise CloudDown(self._provider, f"its answer is not understood, {place_of(error)}") from None

    def order(self, client: Client, order: Order, wanted: Wanted) -> BoundServer | None:
        """Order it; None: the name is in use."""
        from hcloud import APIException
        from hcloud.firewalls import Firewall
        from hcloud.images import Image
        from hcloud.locations import Location
        from hcloud.networks import Network
        from hcloud.server_types import ServerType
        from hcloud.servers import ServerCreatePublicNetwork
        from hcloud.ssh_keys import SSHKey

        image = order.image or wanted.image
        try:
            made = client.servers.create(
                name=order.name,
                server_type=ServerType(name=order.type),
                image=Image(id=int(image)) if image.isdecimal() else Image(name=image),
                location=Location(name=order.region) if order.region else None,
                ssh_keys=[SSHKey(name=name) for name in wanted.ssh_keys],
                networks=[Network(id=number) for number in wanted.networks],
                firewalls=[Firewall(id=number) for number in wanted.firewalls],
                public_net=ServerCreatePublicNetwork(enable_ipv4=wanted.has_ipv4, enable_ipv6=wanted.has_ipv6),
                user_data=order.user_data or None,
                labels=tags.tags_of(order),
            )
        except APIException as error:
            if error.code == TAKEN:
                return None
            raise
        return made.server

    def delete(self, client: Client, number: int) -> None:
        """By its number, without a look at it first."""
        from hcloud.servers import Server

        client.servers.delete(Server(id=number))

    def unless_gone(self, ask: Callable[[], T]) -> T | None:
        """Its answer; None where there is no such thing."""
        from hcloud import APIException

        try:
            return ask()
        except APIException as error:
            if error.code == GONE:
                return None
            raise

    def _in_our_words(self, error: APIException, order: Order | None) -> Exception:
        code, status, detail = str(error.code), self._last.status, self._said(error)
        if code in CAPACITY and order is not None:
            return OutOfCapacity(self._provider, f"{order.type} in {order.region or 'any location'}", detail)
        if code in QUOTA:
            return QuotaReached(self._provider, detail)
        if code in CREDENTIALS:
            return CredentialsRefused(self._provider, detail)
        is_passing = code in PASSING or status == TOO_MANY or status >= SERVER_ERROR or status < CLIENT_ERROR
        if is_passing or order is None:
            return CloudDown(self._provider, detail, retry_after_s=self._last.retry_after_s)
        return OrderRefused(self._provider, detail)

    def _note(self, response: requests.Response, **_: object) -> None:
        """What the library's exception does not tell, per thread."""
        after = response.headers.get("Retry-After", "")
        self._last.status = response.status_code
        self._last.retry_after_s = float(after) if after.isdecimal() else None

    def _said(self, error: Exception) -> str:
        return redacted(error, self._token)

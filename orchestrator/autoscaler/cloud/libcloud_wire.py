"""A driver of apache-libcloud, held on a short lead: no retries of its own, time limits, its errors in our words.

Each question has a driver of its own, because one keeps its last exchange in itself and is not for several
threads. Its readings of machines and sizes are left out: they drop what we need (a droplet's region, Vultr's
tags) and stumble over a status of tomorrow, in which case a whole list is lost. What is refused is told by
the HTTP status and the words of the answer; the drivers' exceptions keep neither in a common form.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import SecretStr

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

T = TypeVar("T")
Form = dict[str, Any]
MISREADINGS = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""The drivers read what they are answered without a look at its shape, refusals too."""
CREDENTIALS = frozenset({401, 403})
CLIENT_ERROR, NOT_FOUND, REQUEST_TIMEOUT, TOO_MANY, SERVER_ERROR = 400, 404, 408, 429, 500


class Gone(CloudDown):
    """There is no such machine: the answer of one question, never what a provider raises."""


class Declined(CloudDown):
    """Not now, and for certain nothing was done."""


class Taken(OrderRefused):
    """The name is in use."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a vendor's refusals look like.

    Attributes:
        driver: module and class in libcloud.
        quota: in the words of an answer: the account may have no more.
        capacity: there are none left of this size in this region.
        taken: the name is in use.
        readings: methods of the driver that turn the API's forms into libcloud's objects.
        page: how large a page is asked for, where the driver asks for small ones.
    """

    driver: str
    quota: re.Pattern[str]
    capacity: re.Pattern[str]
    taken: re.Pattern[str] | None = None
    readings: tuple[str, ...] = ("_to_node", "_to_size")
    page: Form | None = None


@dataclass(frozen=True, slots=True)
class Lead:
    """Of a connection: how long it waits, for a connection and for an answer; what it asks for beside."""

    timeout_s: tuple[float, float]
    page: Form | None


@dataclass(slots=True)
class Exchange:
    """What one driver was answered.

    Attributes:
        status: HTTP's, of the last answer; 0 before the first.
        words: of a refusal.
        answers: forms of what was granted.
    """

    status: int = 0
    retry_after_s: float | None = None
    words: str = ""
    answers: list[object] = field(default_factory=list)

    def note(self, status: int, headers: Mapping[str, str], text: str) -> None:
        """An answer came in."""
        after = headers.get("Retry-After", "")
        self.status = status
        self.retry_after_s = float(after) if after.isdecimal() else None
        self.words = _words(text) if status >= CLIENT_ERROR else ""


class LibcloudWire:
    """One account's API. Its methods block."""

    def __init__(
        self, provider: str, dialect: Dialect, base_url: str, token: SecretStr, answer_within_s: float
    ) -> None:
        self._provider = provider
        self._dialect = dialect
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._lead = Lead((CONNECT_S, min(READ_S, answer_within_s)), dialect.page)

    @contextmanager
    def asked(self, order: Order | None = None, beside: Form | None = None) -> Iterator[Any]:
        """A driver; what it raises comes out in our words. With an order, a refusal is of that order.

        Args:
            order: what is ordered with it.
            beside: goes into the body of what is ordered, for fields that the driver has no argument for.
        """
        import requests
        from libcloud.common.exceptions import BaseHTTPError
        from libcloud.common.linode import LinodeExceptionV4
        from libcloud.common.types import LibcloudError
        from libcloud.common.vultr import VultrException

        exchange = Exchange()
        driver = self._driver(exchange, beside or {})
        try:
            yield driver
        except requests.RequestException as error:
            raise CloudDown(self._provider, f"{type(error).__name__}: {self._said(error)}") from None
        except (LibcloudError, BaseHTTPError, VultrException, LinodeExceptionV4, *MISREADINGS) as error:
            raise self._in_our_words(error, exchange, order) from None  # the cause may hold the whole exchange
        finally:
            driver.connection.connection.session.close()

    def unless_gone(self, ask: Callable[[Any], T]) -> T | None:
        """Its answer; None where there is no such machine."""
        try:
            with self.asked() as driver:
                return ask(driver)
        except Gone:
            return None

    def _driver(self, exchange: Exchange, beside: Form) -> Any:  # noqa: ANN401 - libcloud has no types
        module, _, name = self._dialect.driver.partition(":")
        base = getattr(importlib.import_module(module), name)
        connection = _connection(base.connectionCls, exchange, beside, self._lead)
        as_it_is = dict.fromkeys(self._dialect.readings, lambda _, data: data)
        body = {
            "__new__": lambda cls, *_, **__: object.__new__(cls),  # the drivers' own choose among API versions
            "_ex_connection_class_kwargs": lambda _: {"url": self._base_url},  # DigitalOcean's takes no host
            "connectionCls": connection,
            **as_it_is,
        }
        return type(name, (base,), body)(self._token.get_secret_value())

    def _in_our_words(self, error: Exception, exchange: Exchange, order: Order | None) -> Exception:
        detail = self._said(exchange.words or f"HTTP {exchange.status}")
        if exchange.status < CLIENT_ERROR:
            return self._without_refusal(error, exchange, order)
        # in the API's own words: a proxy's page, or a wrong base_url, says nothing of a machine
        if exchange.status == NOT_FOUND and exchange.words and order is None:
            return Gone(self._provider, detail)
        if exchange.status in {REQUEST_TIMEOUT, TOO_MANY}:
            return Declined(self._provider, detail, retry_after_s=exchange.retry_after_s)
        if exchange.status >= SERVER_ERROR:
            return CloudDown(self._provider, detail, retry_after_s=exchange.retry_after_s)
        if order is not None:
            return self._refusal(exchange, order, detail)
        if exchange.status in CREDENTIALS:
            return CredentialsRefused(self._provider, detail)
        return CloudDown(self._provider, detail)

    def _refusal(self, exchange: Exchange, order: Order, detail: str) -> Exception:
        """Words first: what an account may not have comes with any status."""
        if self._dialect.quota.search(exchange.words):
            return QuotaReached(self._provider, detail)
        if self._dialect.capacity.search(exchange.words):
            return OutOfCapacity(self._provider, f"{order.type} in {order.region}", detail)
        if self._dialect.taken is not None and self._dialect.taken.search(exchange.words):
            return Taken(self._provider, detail)
        if exchange.status in CREDENTIALS:
            return CredentialsRefused(self._provider, detail)
        return OrderRefused(self._provider, f"{order.type} in {order.region}: {detail}")

    def _without_refusal(self, error: Exception, exchange: Exchange, order: Order | None) -> Exception:
        """The driver itself would not ask, or does not understand what it was told."""
        if order is not None and not exchange.status:
            return OrderRefused(self._provider, f"libcloud does not send it: {self._said(error)}")
        return CloudDown(self._provider, f"its answer is not understood, {place_of(error)}")

    def _said(self, error: object) -> str:
        return redacted(error, self._token)


def _connection(base: Any, exchange: Exchange, beside: Form, lead: Lead) -> type:  # noqa: ANN401 - no types there
    """The driver's connection that notes what it is answered, waits so long and tries once."""
    from libcloud.http import LibcloudConnection

    def exchanged(self: Any, *args: object, **kwargs: object) -> None:  # noqa: ANN401
        LibcloudConnection.request(self, *args, **kwargs)  # type: ignore[no-untyped-call]
        exchange.note(self.response.status_code, self.response.headers, self.response.text)

    def request(self: Any, action: str, params: Any = None, data: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401
        if kwargs.get("method") == "POST" and beside:
            data = json.dumps(json.loads(data) | beside)
        # else an environment variable of libcloud's switches its retries on
        response = base.request(self, action, params, data, **{**kwargs, "retry_failed": False})
        exchange.answers.append(response.object)
        return response

    body = {"timeout": lead.timeout_s, "request": request, "exchange": exchange}
    # else another variable of libcloud's writes whole requests, and the token, into a file
    body["conn_class"] = type("Http", (LibcloudConnection,), {"request": exchanged})
    if lead.page is not None:
        body["add_default_params"] = lambda self, params: base.add_default_params(self, params) | lead.page
    return type("Connection", (base,), body)


def _words(text: str) -> str:
    """What a refusal says: `message`, `error` or `reason`, with the field it is about."""
    try:
        form = json.loads(text)
    except ValueError:
        return ""
    found = form.get("errors", [form]) if isinstance(form, dict) else []
    said = [
        f"{each.get('field') or ''} {each.get('message') or each.get('error') or each.get('reason') or ''}".strip()
        for each in (found if isinstance(found, list) else [])
        if isinstance(each, dict)
    ]
    return "; ".join(filter(None, said))

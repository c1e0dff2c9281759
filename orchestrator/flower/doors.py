"""Flower's web application behind one password, on every path, and what it asks of the broker.

Flower itself leaves `/metrics`, `/healthcheck` and its static files open where a password is set: they name
tools and nodes. Refuses every request without the password before any handler is chosen.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from typing import Any

from flower.api.tasks import GetQueueLengths
from flower.app import Flower
from flower.inspector import Inspector
from flower.views import BaseHandler
from flower.views.broker import BrokerView
from tornado.httputil import HTTPServerRequest

from tasks.redis_clients import async_client

REALM = 'Basic realm="mcpfleet"'
ANSWER_S = 3.0


class GuardedFlower(Flower):  # type: ignore[misc]
    """Asks for the login first."""

    def __init__(self, login: tuple[str, str], broker: str, **rest: Any) -> None:  # noqa: ANN401 - Flower is untyped
        super().__init__(**rest)
        self._login = ":".join(login).encode()
        self.broker = Queues(broker)

    def find_handler(self, request: HTTPServerRequest, **rest: Any) -> Any:  # noqa: ANN401 - Tornado's own
        """Tornado's own choice, for those who may come in."""
        if not is_known(request.headers.get("Authorization", ""), self._login):
            return self.get_handler_delegate(request, Refused)
        return super().find_handler(request, **rest)

    def get_handler_delegate(self, request: HTTPServerRequest, target_class: Any, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - Tornado's own
        """Ours for the two that ask the broker."""
        ours = {BrokerView: OurBrokerView, GetQueueLengths: OurQueueLengths}
        return super().get_handler_delegate(request, ours.get(target_class, target_class), *rest, **more)


class Refused(BaseHandler):  # type: ignore[misc]
    """401, whatever was asked."""

    def prepare(self) -> None:
        """Before any method is looked at."""
        self.set_status(401)
        self.set_header("WWW-Authenticate", REALM)
        self.finish("Flower asks for user and password: MCPFLEET_FLOWER_LOGIN.\n")


class Queues:
    """Lengths, over the fleet's own kind of connection: Flower's own knows no TLS options and no second sentinel."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def queues(self, names: list[str]) -> list[dict[str, Any]]:
        """Name and messages of each.

        Raises:
            RedisError: no answer.
        """
        client = async_client(self._url, answer_s=ANSWER_S)
        try:
            pipeline: Any = client.pipeline(transaction=False)
            for name in names:
                pipeline.llen(name)
            depths = await pipeline.execute()
        finally:
            await client.aclose()
        return [{"name": name, "messages": depth} for name, depth in zip(names, depths, strict=True)]


class _AsksOurs:
    """For handlers that show queues."""

    application: GuardedFlower

    def get_broker(self) -> Queues:
        """Instead of Flower's own."""
        return self.application.broker

    def get_active_queue_names(self) -> list[str]:
        """Of the nodes that are there; no queue of Celery's own stands for none."""
        shown = self.application.workers.values()
        return sorted({queue["name"] for info in shown for queue in info.get("active_queues", [])})


class OurBrokerView(_AsksOurs, BrokerView):  # type: ignore[misc]
    """The page of queues."""


class OurQueueLengths(_AsksOurs, GetQueueLengths):  # type: ignore[misc]
    """The same for programs."""


class NoInspector(Inspector):  # type: ignore[misc]
    """Asks nobody: nodes take no orders over the broker. What is known of them comes with their heartbeats."""

    def inspect(self, workername: str | None = None) -> asyncio.Future[None]:
        """At once."""
        _ = workername
        done: asyncio.Future[None] = self.io_loop.asyncio_loop.create_future()
        done.set_result(None)
        return done


def is_known(header: str, login: bytes) -> bool:
    """Whether an `Authorization` header carries this `user:password`. Source: RFC 7617."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, login)

"""Hetzner Cloud's API on loopback, whose servers are machines that boot on this host.

The orchestrator speaks to it with Hetzner's own library; what it knows of a machine, it knows over HTTP.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.autoscaler.cloud.errors import OutOfCapacity
from orchestrator.autoscaler.cloud.provider import Power
from orchestrator.autoscaler.testing.hetzner_books import Books, Offer, Refused
from orchestrator.autoscaler.testing.hetzner_double import HetznerDouble
from tests.vps.api import Account
from tests.vps.centre import DataCentre

T = TypeVar("T")
TOKEN, TOKEN_VARIABLE = "not-a-secret", "DEMO_HETZNER_TOKEN"
REGION = "fsn1"
OFFER = Offer("local1", 1, 1.0, {REGION: "0.0050"})
"""What the data centre has: a processor and a GiB."""
ANSWER_S = 25.0
STATUS = {
    Power.PENDING: "initializing",
    Power.RUNNING: "running",
    Power.STOPPED: "off",
    Power.ENDING: "deleting",
}


class Rooms:
    """The data centre as `Metal`: called by the API's threads, answered by the loop of the data centre."""

    def __init__(self, centre: DataCentre, loop: asyncio.AbstractEventLoop) -> None:
        self._centre, self._loop = centre, loop

    def build(self, number: int, name: str, image: str, user_data: str) -> str:
        """Its address."""
        try:
            return self._told(self._centre.rent(str(number), name, image, user_data))
        except OutOfCapacity as error:
            raise Refused(412, "resource_unavailable", error.message) from error

    def status(self, number: int) -> str | None:
        """In Hetzner's words."""
        power = self._told(self._centre.power(str(number)))
        return None if power is None else STATUS[power]

    def end(self, number: int) -> None:
        """Begun."""
        self._told(self._centre.end(str(number)))

    def _told(self, asked: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(ANSWER_S)


class HetznerApi:
    """One project. An `Api`; made inside the loop of its data centre."""

    def __init__(self, centre: DataCentre, image: str, folder: Path) -> None:
        rooms = Rooms(centre, asyncio.get_running_loop())
        self._books = Books(
            (OFFER,), centre.most, images=(image,), metal=rooms, now=lambda: datetime.now(UTC).isoformat()
        )
        self._double = HetznerDouble(TOKEN, self._books)
        self.centre = centre

    def account(self) -> Account:
        """The image goes by its number, as an operator's snapshot does."""
        options: dict[str, object] = {"kind": "hetzner", "base_url": self._double.base_url}
        # By the hour, as Hetzner is paid, no machine would go before its hour is over.
        options |= {"token_env": TOKEN_VARIABLE, "billing_s": 1.0}
        rung = {"type": OFFER.name, "region": REGION, "image": str(self._books.images[0]["id"])}
        return Account(options, rung, {TOKEN_VARIABLE: TOKEN})

    async def takes(self, name: str) -> None:
        """Hetzner has no spot machines."""
        raise NotImplementedError(name)

    def asked(self) -> Mapping[str, int]:
        """Requests by operation."""
        return Counter(self._double.http.asked)

    async def left(self) -> list[str]:
        """As it would tell its customer."""
        servers = await asyncio.to_thread(self._books.listed)
        return [f"server {each['id']} {each['name']} is {each['status']}" for each in servers]

    async def close(self) -> None:
        """In a thread: who is being answered may wait for this loop."""
        await asyncio.to_thread(self._double.close)

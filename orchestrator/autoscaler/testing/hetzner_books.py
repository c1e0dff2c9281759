"""What an account at Hetzner Cloud holds, in the shapes of its API: the state behind `hetzner_double`.

Owns the forms (JSON as dictionaries) and what they go through; with `Metal` the servers are real, and the forms
say what became of those. Knows no HTTP.
Source: https://docs.hetzner.cloud, and what hcloud 2.27 reads of it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Form = dict[str, Any]
GIB_BYTES = 1024**3
BOOTING = {"initializing": "starting", "starting": "running"}
"""A server takes one step each time somebody looks at it: no clock decides."""
BORN = "2026-01-01T00:00:00+00:00"
DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Offer:
    """A server type, with its price in each location, €/h without tax."""

    name: str
    cores: int
    memory_gib: float
    net_eur_h: dict[str, str]


OFFERS = (
    Offer("cx23", 2, 4.0, {"fsn1": "0.0056", "nbg1": "0.0056", "hel1": "0.0056"}),
    Offer("cx33", 4, 8.0, {"fsn1": "0.0088", "nbg1": "0.0088", "hel1": "0.0088"}),
    Offer("cax21", 4, 8.0, {"fsn1": "0.0104", "nbg1": "0.0104"}),
)
IMAGES = ("debian-12", "ubuntu-24.04")
LOCATIONS = {"fsn1": "DE", "nbg1": "DE", "hel1": "FI"}


class Refused(Exception):
    """The API's own error: HTTP status, code, words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Metal(Protocol):
    """What makes a server real. Each method answers quickly: what takes longer is begun, and looked at later."""

    def build(self, number: int, name: str, image: str, user_data: str) -> str:
        """Begin to boot this server; its IPv4 address.

        Raises:
            Refused: it cannot be.
        """
        ...

    def status(self, number: int) -> str | None:
        """In the API's words; None: nothing of it is left."""
        ...

    def end(self, number: int) -> None:
        """Begin to end it, however often it is said."""
        ...


class Books:
    """One project. Not for several threads at once: whoever holds it locks.

    Args:
        offers: the catalogue.
        limit: of servers.
        images: their names; they are numbered from 1 on.
        metal: None: servers are entries in these books, and nothing runs anywhere.
        now: ISO 8601, of what happens.
    """

    def __init__(
        self,
        offers: tuple[Offer, ...] = OFFERS,
        limit: int = 100,
        *,
        images: tuple[str, ...] = IMAGES,
        metal: Metal | None = None,
        now: Callable[[], str] = lambda: BORN,
    ) -> None:
        self.offers = {offer.name: offer for offer in offers}
        self.limit = limit
        """Servers that the account may have."""
        self.out_of_stock: set[tuple[str, str]] = set()
        """Pairs of type and location."""
        self.servers: dict[int, Form] = {}
        self.user_data: dict[int, str] = {}
        self.actions: dict[int, Form] = {}
        self.ssh_keys: dict[int, Form] = {}
        self.images = [self._image(n, name) for n, name in enumerate(images, 1)]
        self.locations = {name: _location(n, name) for n, name in enumerate(LOCATIONS, 1)}
        self._metal = metal
        self._now = now
        self._ids = itertools.count(1000)
        self._seen: dict[int, Form] | None = None

    def lag(self, is_on: bool) -> None:
        """Lists show what there was, until it is over. A server asked for by its id is shown as it is."""
        self._seen = copy.deepcopy(self.servers) if is_on else None

    def listed(self) -> list[Form]:
        """What a list shows."""
        for number in list(self.servers):
            self._look(number)
        return list((self.servers if self._seen is None else self._seen).values())

    def server(self, server_id: int) -> Form:
        """One."""
        self._look(server_id)
        if server_id not in self.servers:
            raise Refused(404, "not_found", f"server with ID '{server_id}' not found")
        return self.servers[server_id]

    def order(self, wanted: Form) -> tuple[Form, Form]:
        """A new server, and the action that makes it."""
        name, type_name = str(wanted.get("name", "")), str(wanted.get("server_type", ""))
        place = str(wanted.get("location") or next(iter(self.locations)))
        offer = self.offers.get(type_name)
        image = self._image_of(wanted.get("image"))
        if not name or offer is None or place not in self.locations or image is None:
            raise Refused(422, "invalid_input", "invalid input in field 'name', 'server_type', 'location' or 'image'")
        if place not in offer.net_eur_h:
            raise Refused(422, "invalid_input", "unsupported location for server type")
        if any(server["name"] == name for server in self.servers.values()):
            raise Refused(409, "uniqueness_error", "server name is already used")
        if len(self.servers) >= self.limit:
            raise Refused(403, "resource_limit_exceeded", "server limit exceeded")
        if (type_name, place) in self.out_of_stock:
            raise Refused(412, "resource_unavailable", f"server type {type_name} is unavailable in {place}")
        server = self._server(name, offer, place, dict(wanted.get("labels") or {}))
        user_data = str(wanted.get("user_data") or "")
        if self._metal is not None:
            server["public_net"]["ipv4"]["ip"] = self._metal.build(server["id"], name, image["name"], user_data)
        self.servers[server["id"]] = server
        self.user_data[server["id"]] = user_data
        return server, self.act("create_server", server["id"])

    def end(self, server_id: int) -> Form:
        """Delete it. A real one is listed until nothing of it is left."""
        server = self.server(server_id)
        if self._metal is None:
            del self.servers[server_id]
        else:
            server["status"] = DELETING
            self._metal.end(server_id)
        return self.act("delete_server", server_id)

    def act(self, command: str, server_id: int) -> Form:
        """A new action; it has succeeded when it is looked at next."""
        action: Form = {
            "id": next(self._ids),
            "command": command,
            "status": "running",
            "progress": 0,
            "started": self._now(),
            "finished": None,
            "resources": [{"id": server_id, "type": "server"}],
            "error": None,
        }
        self.actions[action["id"]] = action
        return dict(action)

    def action(self, action_id: int) -> Form:
        """One, done by now."""
        if action_id not in self.actions:
            raise Refused(404, "not_found", f"action with ID '{action_id}' not found")
        self.actions[action_id] |= {"status": "success", "progress": 100, "finished": self._now()}
        return self.actions[action_id]

    def add_ssh_key(self, name: str, public_key: str) -> Form:
        """For new servers."""
        if any(name == key["name"] for key in self.ssh_keys.values()):
            raise Refused(409, "uniqueness_error", "SSH key name is already used")
        key: Form = {"id": next(self._ids), "name": name, "public_key": public_key, "fingerprint": "", "labels": {}}
        self.ssh_keys[key["id"]] = key | {"created": self._now()}
        return self.ssh_keys[key["id"]]

    def server_types(self) -> list[Form]:
        """The catalogue."""
        return [self._type(offer) for offer in self.offers.values()]

    def _look(self, number: int) -> None:
        """What became of a server since."""
        if number not in self.servers:
            return
        server = self.servers[number]
        if self._metal is None:
            server["status"] = BOOTING.get(server["status"], server["status"])
            return
        status = self._metal.status(number)
        if status is None:
            del self.servers[number]
        else:
            server["status"] = status

    def _image_of(self, image: object) -> Form | None:
        return next((each for each in self.images if str(image) in {each["name"], str(each["id"])}), None)

    def _server(self, name: str, offer: Offer, place: str, labels: dict[str, str]) -> Form:
        number = next(self._ids)
        address = {"ip": f"192.0.2.{number % 250 + 1}", "id": number, "blocked": False, "dns_ptr": ""}
        network = {"ip": f"2001:db8:{number:x}::/64", "id": number, "blocked": False, "dns_ptr": []}
        return {
            "id": number,
            "name": name,
            "status": "initializing",
            "created": self._now(),
            "public_net": {"ipv4": address, "ipv6": network, "floating_ips": [], "firewalls": []},
            "private_net": [],
            "server_type": self._type(offer),
            "location": self.locations[place],
            "image": None,
            "iso": None,
            "rescue_enabled": False,
            "locked": False,
            "backup_window": None,
            "outgoing_traffic": 0,
            "ingoing_traffic": 0,
            "included_traffic": 0,
            "protection": {"delete": False, "rebuild": False},
            "labels": labels,
            "volumes": [],
            "load_balancers": [],
            "primary_disk_size": 40,
            "placement_group": None,
        }

    def _type(self, offer: Offer) -> Form:
        places = [
            {**self.locations[name], "deprecation": None, "recommended": False}
            | {"available": (offer.name, name) not in self.out_of_stock}
            for name in offer.net_eur_h
        ]
        return {
            "id": list(self.offers).index(offer.name) + 1,
            "name": offer.name,
            "description": offer.name.upper(),
            "category": "Shared vCPU",
            "cores": offer.cores,
            "memory": offer.memory_gib,
            "disk": 40,
            "storage_type": "local",
            "cpu_type": "shared",
            "architecture": "arm" if offer.name.startswith("cax") else "x86",
            "deprecation": None,
            "locations": [{key: place[key] for key in _OF_TYPE} for place in places],
            "prices": [_price(name, net) for name, net in offer.net_eur_h.items()],
        }

    @staticmethod
    def _image(number: int, name: str) -> Form:
        return {"id": number, "name": name, "type": "system", "status": "available", "architecture": "x86"} | {
            "description": name,
            "os_flavor": name.partition("-")[0],
            "os_version": name.partition("-")[2],
            "disk_size": 5,
            "image_size": None,
            "rapid_deploy": True,
            "created": BORN,
            "created_from": None,
            "bound_to": None,
            "protection": {"delete": False},
            "deprecated": None,
            "labels": {},
        }


_OF_TYPE = ("id", "name", "deprecation", "available", "recommended")


def _price(place: str, net: str) -> Form:
    hourly = {"net": net, "gross": f"{float(net) * 1.19:.6f}"}
    monthly = {"net": f"{float(net) * 624:.4f}", "gross": f"{float(net) * 624 * 1.19:.4f}"}
    return {
        "location": place,
        "price_hourly": hourly,
        "price_monthly": monthly,
        "included_traffic": 20 * 1024 * GIB_BYTES,
        "price_per_tb_traffic": {"net": "1.00", "gross": "1.19"},
    }


def _location(number: int, name: str) -> Form:
    country = LOCATIONS[name]
    return {"id": number, "name": name, "country": country, "city": name, "description": name} | {
        "latitude": 0.0,
        "longitude": 0.0,
        "network_zone": "eu-central",
    }

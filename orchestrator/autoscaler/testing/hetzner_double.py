"""Hetzner Cloud's API on loopback, for the real client library: orders, lists, prices, and faults on demand.

Owns paths, paging, label selectors and credentials; what the account holds is in `hetzner_books`.
For our contract suite, for plugin writers, and for rehearsals: `[providers.hetzner] base_url = …`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable

from orchestrator.autoscaler.testing.faulty_http import Answer, Asked, Fault, FaultyServer, json_answer
from orchestrator.autoscaler.testing.hetzner_books import Books, Form, Refused

PER_PAGE, PER_PAGE_MOST = 25, 50
CREATE, LIST, DELETE, TYPES = "POST /servers", "GET /servers", "DELETE /servers/*", "GET /server_types"
"""Operations as `FaultyServer.meet` takes them; the number in a path is a star."""
OPERATIONS = (CREATE, LIST, "GET /servers/*", DELETE, TYPES)
"""All that the provider asks."""


class HetznerDouble:
    """A project with one token."""

    def __init__(self, token: str, books: Books | None = None) -> None:
        self.books = books or Books()
        self._token = token
        self._lock = threading.Lock()
        self.http = FaultyServer(self._reply, operation)

    @property
    def base_url(self) -> str:
        """For the option `base_url`."""
        return f"{self.http.url}/v1"

    def fail(self, what: str, code: str, status: int, *, times: int = 1, retry_after_s: int | None = None) -> None:
        """So many requests of operation `what` are answered with this error, and not carried out."""
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self.http.meet(what, Fault(error(status, code, f"told to answer {code}", headers)), times)

    def lose_answer(self, what: str, *, hangs: bool = False) -> None:
        """The next one is carried out, and the connection cut before the answer."""
        self.http.meet(what, Fault(is_carried_out=True, hangs=hangs))

    def turn_away(self) -> None:
        """Its token is good no more."""
        self._token = ""

    def close(self) -> None:
        """Stop."""
        self.http.close()

    def _reply(self, asked: Asked) -> Answer:
        if asked.headers.get("authorization") != f"Bearer {self._token}":
            # worse than the API: who prints what it says prints the token
            return error(401, "unauthorized", f"unable to authenticate {asked.headers.get('authorization')}")
        parts = asked.path.removeprefix("/v1").strip("/").split("/")
        numbers = [int(part) for part in parts if part.isdigit()]
        route = self._routes().get(operation(asked))
        if route is None:
            return error(404, "not_found", "no such path")
        try:
            with self._lock:
                return route(asked, numbers[0] if numbers else 0)
        except Refused as refused:
            return error(refused.status, refused.code, refused.message)
        except ValueError:
            return error(400, "json_error", "invalid JSON")

    def _routes(self) -> dict[str, Callable[[Asked, int], Answer]]:
        books = self.books
        return {
            LIST: lambda asked, _: _page(asked, "servers", books.listed()),
            CREATE: self._create,
            "GET /servers/*": lambda _, number: json_answer(200, {"server": books.server(number)}),
            DELETE: lambda _, number: json_answer(200, {"action": books.end(number)}),
            "GET /actions/*": lambda _, number: json_answer(200, {"action": books.action(number)}),
            "GET /actions": lambda asked, _: _page(
                asked, "actions", [books.action(int(number)) for number in asked.query.get("id", [])]
            ),
            TYPES: lambda asked, _: _page(asked, "server_types", books.server_types()),
            "GET /images": lambda asked, _: _page(asked, "images", books.images),
            "GET /locations": lambda asked, _: _page(asked, "locations", list(books.locations.values())),
            "GET /ssh_keys": lambda asked, _: _page(asked, "ssh_keys", list(books.ssh_keys.values())),
            "POST /ssh_keys": self._add_ssh_key,
        }

    def _create(self, asked: Asked, _: int) -> Answer:
        server, action = self.books.order(json.loads(asked.body))
        return json_answer(
            201, {"server": server, "action": action, "next_actions": [], "root_password": None, "user_data": None}
        )

    def _add_ssh_key(self, asked: Asked, _: int) -> Answer:
        wanted = json.loads(asked.body)
        return json_answer(201, {"ssh_key": self.books.add_ssh_key(str(wanted["name"]), str(wanted["public_key"]))})


def operation(asked: Asked) -> str:
    """Method and path, numbers as stars."""
    return f"{asked.method} {re.sub(r'/[0-9]+', '/*', asked.path.removeprefix('/v1'))}"


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    """The API's form of an error."""
    return json_answer(status, {"error": {"code": code, "message": message, "details": None}}, headers)


def _page(asked: Asked, name: str, items: list[Form]) -> Answer:
    """The page that was asked for, of what name and labels let through."""
    wanted = asked.query.get("name")
    selectors = asked.query.get("label_selector", [])
    found = [
        item
        for item in items
        if (wanted is None or item["name"] in wanted) and all(selects(each, item["labels"]) for each in selectors)
    ]
    size = min(PER_PAGE_MOST, int(asked.query.get("per_page", [str(PER_PAGE)])[0]))
    page = int(asked.query.get("page", ["1"])[0])
    last = max(1, -(-len(found) // size))
    paging = {
        "page": page,
        "per_page": size,
        "previous_page": page - 1 if page > 1 else None,
        "next_page": page + 1 if page < last else None,
        "last_page": last,
        "total_entries": len(found),
    }
    return json_answer(200, {name: found[(page - 1) * size : page * size], "meta": {"pagination": paging}})


def selects(selector: str, labels: dict[str, str]) -> bool:
    """`a=b,c!=d,e,!f`: all must hold. Sets (`in (…)`) are refused."""
    return all(_holds(term.strip(), labels) for term in selector.split(",") if term.strip())


def _holds(term: str, labels: dict[str, str]) -> bool:
    matched = re.fullmatch(r"(!?)([\w./-]+)(?:(==|=|!=)([\w.-]*))?", term)
    if matched is None:
        raise Refused(422, "invalid_input", f"label selector {term!r} is not understood")
    negated, key, operator, value = matched.groups()
    if operator is None:
        return (key in labels) is not bool(negated)
    return (labels.get(key) == value) is (operator != "!=")

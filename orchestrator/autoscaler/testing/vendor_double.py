"""A cloud vendor's API on loopback, for real client libraries: what the doubles of several vendors share.

Owns credentials, routes, the machines of one account, and faults on demand. What an order must look like,
and what is answered, each vendor's double says.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from orchestrator.autoscaler.testing.faulty_http import Answer, Asked, Fault, FaultyServer, json_answer

Form = dict[str, Any]
BORN = "2026-01-01T00:00:00"
IDS = re.compile(r"/([0-9]+|[0-9a-f]{8}-[0-9a-f-]{27})$")


class Refused(Exception):
    """The API's own error: HTTP status and words, in the form of the vendor's `refusal`."""

    def __init__(self, status: int, words: str, field: str = "") -> None:
        super().__init__(words)
        self.status, self.words, self.field = status, words, field


class VendorDouble:
    """An account with one token."""

    path: ClassVar[str]
    """Of its machines."""
    key: ClassVar[str]
    """Of a list of machines in an answer."""
    lists: ClassVar[dict[str, tuple[str, list[Form]]]]
    """Other lists: path → key, forms."""
    created: ClassVar[int]
    """HTTP status of an order that is carried out."""
    deleted: ClassVar[Form | None] = None
    """The body after a deletion; without one the status is 204."""
    boots: ClassVar[tuple[str, ...]]
    """States of a new machine: one step each time somebody looks at it, no clock decides."""

    def __init__(self, token: str) -> None:
        self.machines: dict[str, Form] = {}
        self.wanted: dict[str, Form] = {}
        """Orders as they came, by the id of their machine."""
        self.limit = 100
        self.out_of_stock: set[tuple[str, str]] = set()
        """Pairs of size and region."""
        self._token = token
        self._seen: dict[str, Form] | None = None
        self._lock = threading.Lock()
        self.http = FaultyServer(self._reply, operation)

    @property
    def create(self) -> str:
        """Operation as `FaultyServer.meet` takes it."""
        return f"POST {self.path}"

    @property
    def listing(self) -> str:
        """Likewise."""
        return f"GET {self.path}"

    @property
    def delete(self) -> str:
        """Likewise."""
        return f"DELETE {self.path}/*"

    @property
    def operations(self) -> tuple[str, ...]:
        """All that a provider asks."""
        return (self.create, self.listing, f"GET {self.path}/*", self.delete, *(f"GET {path}" for path in self.lists))

    def refusal(self, refused: Refused) -> Form:
        """The body of an error."""
        raise NotImplementedError

    def made(self, wanted: Form) -> Form:
        """The new machine of a lawful order; raises `Refused`. It has `id` and `status`."""
        raise NotImplementedError

    def one(self, machine: Form) -> Form:
        """The body for one machine."""
        raise NotImplementedError

    def page(self, asked: Asked, key: str, forms: list[Form]) -> Form:
        """The body for the page that was asked for."""
        raise NotImplementedError

    def lag(self, is_on: bool) -> None:
        """Lists show what there was, until it is over. A machine asked for by its id is shown as it is."""
        self._seen = copy.deepcopy(self.machines) if is_on else None

    def fail(self, what: str, status: int, words: str, *, times: int = 1, retry_after_s: int | None = None) -> None:
        """So many requests of operation `what` are answered with this error, and not carried out."""
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self.http.meet(what, Fault(json_answer(status, self.refusal(Refused(status, words)), headers)), times)

    def lose_answer(self, what: str) -> None:
        """The next one is carried out, and the connection cut before the answer."""
        self.http.meet(what, Fault(is_carried_out=True))

    def turn_away(self) -> None:
        """Its token is good no more."""
        self._token = ""

    def close(self) -> None:
        """Stop."""
        self.http.close()

    def _reply(self, asked: Asked) -> Answer:
        found = IDS.search(asked.path)
        try:
            with self._lock:
                return self._routed(asked)(asked, found[1] if found else "")
        except Refused as refused:
            return json_answer(refused.status, self.refusal(refused))

    def _routed(self, asked: Asked) -> Callable[[Asked, str], Answer]:
        if asked.headers.get("authorization") != f"Bearer {self._token}":
            # worse than an API: who prints what it says prints the token
            raise Refused(401, f"Unable to authenticate {asked.headers.get('authorization')}")
        route = self._routes().get(operation(asked))
        if route is None:
            raise Refused(404, "Not found")
        return route

    def _routes(self) -> dict[str, Callable[[Asked, str], Answer]]:
        others: dict[str, Callable[[Asked, str], Answer]] = {
            f"GET {path}": lambda asked, _, key=key, forms=forms: json_answer(200, self.page(asked, key, forms))  # type: ignore[misc]
            for path, (key, forms) in self.lists.items()
        }
        return others | {
            self.create: self._create,
            self.listing: lambda asked, _: json_answer(200, self.page(asked, self.key, self._listed())),
            f"GET {self.path}/*": lambda _, number: json_answer(200, self.one(self._boot(self._found(number)))),
            self.delete: self._delete,
        }

    def _create(self, asked: Asked, _: str) -> Answer:
        wanted: Form = json.loads(asked.body)
        machine = self.made(wanted)
        self.machines[str(machine["id"])] = machine
        self.wanted[str(machine["id"])] = wanted
        return json_answer(self.created, self.one(machine))

    def _delete(self, _: Asked, number: str) -> Answer:
        self._found(number)
        del self.machines[number]
        return Answer(204) if self.deleted is None else json_answer(200, self.deleted)

    def _found(self, number: str) -> Form:
        if number not in self.machines:
            raise Refused(404, "Not found")
        return self.machines[number]

    def _listed(self) -> list[Form]:
        for machine in self.machines.values():
            self._boot(machine)
        return list((self.machines if self._seen is None else self._seen).values())

    def _boot(self, machine: Form) -> Form:
        steps = dict(zip(self.boots, self.boots[1:], strict=False))
        machine["status"] = steps.get(machine["status"], machine["status"])
        return machine


def operation(asked: Asked) -> str:
    """Method and path, an id at its end as a star."""
    return f"{asked.method} {IDS.sub('/*', asked.path)}"


def numbered(asked: Asked, size_name: str, size_most: int, forms: list[Form]) -> tuple[int, int, list[Form]]:
    """Page, pages, and what is on it."""
    size = int(asked.query.get(size_name, ["25"])[0])
    if not 1 <= size <= size_most:
        raise Refused(400, f"must be 1 to {size_most}", size_name)
    page = int(asked.query.get("page", ["1"])[0])
    return page, max(1, -(-len(forms) // size)), forms[(page - 1) * size : page * size]

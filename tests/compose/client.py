"""What a caller does: keeps calling through the proxy whatever happens behind it, and remembers what was accepted.

A call goes out again, under the same idempotency key, until it is accepted. What is counted is the ledger's word at
the end. Refuses to know containers.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

T = TypeVar("T")
WITHIN_S = 300.0
ASK_EVERY_S = 0.5
CALL_EVERY_S = 0.5


class NotSeen(Exception):
    """What was waited for did not come."""


def until(holds: Callable[[], T | None], what: str, within_s: float = WITHIN_S) -> T:
    """What `holds` says, once it is true; an error of the network is a no.

    Raises:
        NotSeen: it did not become true in time.
    """
    ends, last = time.monotonic() + within_s, ""
    while time.monotonic() < ends:
        try:
            if found := holds():
                return found
        except httpx.HTTPError as error:
            last = f"; last: {error!r}"
        time.sleep(ASK_EVERY_S)
    raise NotSeen(f"{what}: not within {within_s:g} s{last}")


class Caller:
    """The API behind the proxy, with the certificate checked."""

    def __init__(self, url: str, token: str, ca: Path) -> None:
        self._url, self._token, self._ca = url, token, ca
        self._headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(
            base_url=url, headers=self._headers, timeout=90, verify=ssl.create_default_context(cafile=str(ca))
        )

    def get(self, path: str, **query: Any) -> Any:
        """The answer's JSON."""
        answer = self._http.get(path, params=query)
        answer.raise_for_status()
        return answer.json()

    def status(self, path: str, **options: Any) -> int:
        """Of a GET."""
        return self._http.get(path, **options).status_code

    def accepted(self, key: str, tool: str, arguments: dict[str, Any], **options: Any) -> str:
        """The id of a call, asked for until somebody accepts it; the key makes it one call."""

        def ask() -> str | None:
            body = {"tool": tool, "arguments": arguments, **options}
            answer = self._http.post("/v1/invocations", json=body, headers={"Idempotency-Key": key})
            if 400 <= answer.status_code < 500 and answer.status_code != 429:
                raise NotSeen(f"{tool} was refused with {answer.status_code}: {answer.text[:500]}")
            return str(answer.json()["id"]) if answer.status_code in {200, 202} else None

        return until(ask, f"{tool} is accepted")

    def ended(self, invocation: str) -> dict[str, Any]:
        """It, once it ended."""

        def ask() -> dict[str, Any] | None:
            view = self.get(f"/v1/invocations/{invocation}", wait=20)
            return view if view["ended_at"] is not None else None

        return until(ask, f"{invocation} ends")

    def nodes(self) -> list[str]:
        """Names of those that take calls."""
        listed = self.get("/v1/nodes")
        rows = listed["items"]
        return sorted(row["name"] for row in rows if row["state"] == "active")

    def by_mcp(self, tool: str, arguments: dict[str, Any]) -> Any:
        """The same through the fleet's MCP door, by the SDK's own client."""

        async def call() -> Any:
            context = ssl.create_default_context(cafile=str(self._ca))
            async with (
                httpx2.AsyncClient(headers=self._headers, timeout=90, verify=context) as http,
                Client(streamable_http_client(f"{self._url}/mcp", http_client=http)) as client,
            ):
                listed = await client.list_tools()
                assert tool in {one.name for one in listed.tools}, [one.name for one in listed.tools]
                return await client.call_tool(tool, arguments)

        return asyncio.run(call())


class Traffic:
    """Calls twice a second, from a thread, until it is stopped."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._over = threading.Event()
        self._failed: list[str] = []
        self._thread = threading.Thread(target=self._run, name="traffic")
        self.accepted: list[str] = []

    def __enter__(self) -> Self:
        """Begins."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends; a call that nobody accepted is an error of `check`."""
        self._over.set()
        self._thread.join()

    def check(self) -> str:
        """Every call that was accepted succeeded.

        Raises:
            NotSeen: one did not.
        """
        if self._failed:
            raise NotSeen(f"traffic stopped: {self._failed[0]}")
        states = Counter(self._caller.ended(one)["state"] for one in self.accepted)
        if set(states) != {"succeeded"}:
            raise NotSeen(f"of what was accepted not all succeeded: {dict(states)}")
        return f"{states['succeeded']} calls accepted meanwhile, all of them succeeded"

    def _run(self) -> None:
        try:
            for number in itertools.count():
                if self._over.wait(CALL_EVERY_S):
                    return
                key = f"traffic-{id(self)}-{number}"
                self.accepted.append(self._caller.accepted(key, "probe.sleep", {"seconds": 0.2, "steps": 1}))
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to; `check` says it
            self._failed.append(repr(error))

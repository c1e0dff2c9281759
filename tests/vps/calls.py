"""The load of the demo, and its books: every call that was accepted, and how the ledger says it ended."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from orchestrator.testing.waiting import until
from tests.vps.hall import Hall

TOOL = "probe.sleep"
TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired", "lost"})
PATIENCE = {"attempts": 10, "first_wait_s": 0.2, "cap_s": 2.0}
FILL_EVERY_S = 0.5


@dataclass
class Load:
    """Calls of one act: as many as keep `depth` of them open, until it is told to stop."""

    hall: Hall
    pool: str
    seconds: float
    depth: int
    ids: list[str] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    _key: str = field(default_factory=lambda: secrets.token_hex(4))

    @asynccontextmanager
    async def coming(self) -> AsyncIterator[None]:
        """Calls arrive, from entry to exit."""
        over = asyncio.Event()
        await self._fill()
        filling = asyncio.create_task(self._keep_full(over))
        try:
            yield
        finally:
            over.set()
            await filling

    async def _keep_full(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._fill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FILL_EVERY_S):
                    await over.wait()

    async def _fill(self) -> None:
        """Accepted, durably, in one commit."""
        await self.look()
        missing = self.depth - sum(view["state"] not in TERMINAL for view in self.views)
        if missing <= 0:
            return
        form = {"tool": TOOL, "arguments": {"seconds": self.seconds, "steps": 1}, "pool": self.pool, "retry": PATIENCE}
        first = len(self.ids)
        calls = [form | {"idempotency_key": f"{self._key}-{n}"} for n in range(first, first + missing)]
        answer = (await self.hall.ask("POST", "/v1/invocations:batch", json={"calls": calls})).raise_for_status()
        self.ids += [item["id"] for item in answer.json()["items"]]

    async def ended(self, within_s: float) -> None:
        """Every call has; what the ledger says of each is kept."""
        await until(self._has_ended, within_s)

    async def _has_ended(self) -> bool:
        await self.look()
        return len(self.views) == len(self.ids) and all(view["state"] in TERMINAL for view in self.views)

    async def look(self) -> None:
        """What the ledger says of every call; one that has ended is not asked for again."""
        known = {view["id"]: view for view in self.views if view["state"] in TERMINAL}
        for one in [each for each in self.ids if each not in known]:
            known[one] = (await self.hall.ask("GET", f"/v1/invocations/{one}")).raise_for_status().json()
        self.views = [known[one] for one in self.ids if one in known]

    def nodes(self) -> set[str]:
        """That started a call."""
        return set(first_starts(self.views))


@dataclass(frozen=True, slots=True)
class Books:
    """What the ledger says.

    Attributes:
        repeated: calls that were started more than once.
        moved: calls that were given to a node which did not start them, and then out again.
    """

    states: Counter[str]
    repeated: int
    moved: int
    nodes: Counter[str]
    wrong: tuple[str, ...]


def books(load: Load) -> Books:
    """Accepted is answered, once: the promise that a machine which comes or goes must not break."""
    wrong = [f"{view['id']} is {view['state']}: {view.get('error')}" for view in load.views if not _is_good(view)]
    missing = set(load.ids) - {view["id"] for view in load.views}
    wrong += [f"{one} was accepted, and the ledger does not know it" for one in sorted(missing)]
    wrong += [f"{view['id']} was answered {n} times" for view in load.views if (n := _answers(view)) != 1]
    last = [view["attempts"][-1]["node"] for view in load.views if view["attempts"]]
    repeated = sum(_starts(view) > 1 for view in load.views)
    moved = sum(len(view["attempts"]) > max(1, _starts(view)) for view in load.views)
    return Books(Counter(view["state"] for view in load.views), repeated, moved, Counter(last), tuple(wrong))


def first_starts(views: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Node → when it started its first call."""
    starts: dict[str, float] = {}
    for attempt in (attempt for view in views for attempt in view["attempts"]):
        if attempt["started_at"] is not None:
            node = attempt["node"]
            starts[node] = min(attempt["started_at"], starts.get(node, attempt["started_at"]))
    return starts


def _is_good(view: dict[str, Any]) -> bool:
    return bool(view["state"] == "succeeded")


def _starts(view: dict[str, Any]) -> int:
    return sum(attempt["started_at"] is not None for attempt in view["attempts"])


def _answers(view: dict[str, Any]) -> int:
    return sum(attempt["ending"] == "succeeded" for attempt in view["attempts"])

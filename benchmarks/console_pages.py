"""What a page of the console costs, with 1,000 calls in the ledger and with 100,000.

python -m benchmarks.console_pages [--rows 1000 100000]

In process, without a socket: a real core and its real API on SQLite, asked as the console asks it. For each page: the
whole answer, and of it the time inside the API's own operations; the rest is the console's, templates above all.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import create_engine, insert

from orchestrator.console.frame import Console
from orchestrator.console.inside import Answer, Inside, Query
from orchestrator.console.live import Pulse
from orchestrator.console.pages import PAGES
from orchestrator.console.session import Sessions
from orchestrator.ledger.tables import ATTEMPTS, INVOCATIONS
from orchestrator.testing.core_app import app_of
from orchestrator.testing.protocol import Story
from tasks.clock import SystemClock

BASE, TOKEN = "http://127.0.0.1:8700", os.urandom(16).hex()
ROUNDS, BATCH, NODES, OPEN = 30, 2000, 20, 30
PAGES_ASKED = (
    "",
    "/fleet",
    "/calls",
    "/calls?project=p7",
    "/calls?tool=srv.t3",
    "/calls?state=bad",
    "/calls?state=open",
    "/calls?node=n3",
    "/calls?node=gone",
    "/calls?principal=nobody",
    "/calls?took=3600",
    "/calls?tool=srv.t3&project=p7&state=succeeded",
    "/calls?age=3600",
    "/calls/id-0000000500",
)


ATTEMPT = {
    "fence": 1,
    "term": 1,
    "pool": "east",
    "lane": "tools",
    "reasons_json": '["capability: 20 of 20 nodes offer it", "node: least loaded"]',
}


class Timed:
    """Adds up the time inside the API."""

    spent_s = 0.0

    @classmethod
    def install(cls) -> None:
        """From now on."""
        asked = Inside.ask

        async def ask(
            self: Inside, method: str, path: str, *, query: Query | None = None, body: Mapping[str, Any] | None = None
        ) -> Answer:
            begun = time.perf_counter()
            try:
                return await asked(self, method, path, query=query, body=body)
            finally:
                cls.spent_s += time.perf_counter() - begun

        Inside.ask = ask  # type: ignore[method-assign]


def rows(count: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Calls of fifty projects, forty tools and twenty nodes, half a second apart; the newest have not ended."""
    dice, now = random.Random(7), time.time()
    for number in range(count):
        state = dice.choices(("succeeded", "failed", "lost", "expired", "cancelled"), (95, 2, 1, 1, 1))[0]
        state = dice.choice(("waiting", "running", "released")) if number >= count - OPEN else state
        is_over = number < count - OPEN
        node, at = f"n{dice.randrange(NODES)}", now - (count - number) * 0.5
        call_id = f"id-{number:010d}"
        attempt = {"invocation_id": call_id, "node": node, "released_at": at, "started_at": at, **ATTEMPT}
        ended = {"ended_at": at + 1, "ending": state} if is_over else {"ended_at": None, "ending": None}
        yield (
            {
                "id": call_id,
                "tenant": "default",
                "principal": f"agent-{dice.randrange(30)}",
                "tool": f"srv.t{dice.randrange(40)}",
                "project": f"p{dice.randrange(50)}",
                "lane": "tools",
                "state": state,
                "fence": 1,
                "tries": 1,
                "priority": 5,
                "node": node,
                "cancel_requested": False,
                "accepted_at": at,
                "ended_at": at + dice.expovariate(1) if is_over else None,
                "call_digest": "x",
                "ending": state if is_over else None,
                "arguments_json": '{"a": "' + "x" * 200 + '"}',
                "result_json": '{"content": [{"type": "text", "text": "' + "y" * 400 + '"}]}' if is_over else None,
            },
            attempt | ended | {"queue": f"mcpfleet.n.{node}.tools"},
        )


def fill(folder: Path, count: int) -> None:
    """Straight into the tables."""
    engine, batch = create_engine(f"sqlite:///{folder / 'ledger.db'}"), []
    with engine.begin() as connection:
        for pair in rows(count):
            batch.append(pair)
            if len(batch) == BATCH:
                connection.execute(insert(INVOCATIONS), [call for call, _ in batch])
                connection.execute(insert(ATTEMPTS), [attempt for _, attempt in batch])
                batch.clear()
        if batch:
            connection.execute(insert(INVOCATIONS), [call for call, _ in batch])
            connection.execute(insert(ATTEMPTS), [attempt for _, attempt in batch])
    engine.dispose()


async def measure(count: int) -> None:
    """One ledger of so many rows."""
    with tempfile.TemporaryDirectory(prefix="mcpfleet-console-") as name:
        folder = Path(name)
        await (await Story.begin(folder, SystemClock())).end()  # type: ignore[arg-type]
        fill(folder, count)
        story = await Story.begin(folder, SystemClock())  # type: ignore[arg-type]
        clock = story.core.stores.clock
        for number in range(NODES):
            await story.join(f"n{number}")
        sessions = Sessions(os.urandom(16), idle_s=3600, clock=clock)
        console = Console(PAGES, sessions=sessions, pulse=Pulse(), clock=clock, version="bench")
        app = app_of(story.core, TOKEN, extra_routes=console.routes())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as http:
            form = {"credential": TOKEN}
            assert (await http.post("/console/login", data=form, headers={"Origin": BASE})).is_redirect
            print(f"\n{count:,} calls".replace(",", " "))
            print(f"{'page':48} {'p50 ms':>8} {'max ms':>8} {'API p50':>8} {'KiB':>6}")
            for page in PAGES_ASKED:
                await one_page(http, page)
        await story.end()


async def one_page(http: httpx.AsyncClient, page: str) -> None:
    """Ask it often."""
    whole, inside = [], []
    size = 0
    for _ in range(ROUNDS):
        Timed.spent_s, begun = 0.0, time.perf_counter()
        answer = await http.get(f"/console{page}")
        whole.append((time.perf_counter() - begun) * 1000)
        inside.append(Timed.spent_s * 1000)
        assert answer.status_code == httpx.codes.OK, (page, answer.status_code, answer.text[:300])
        size = len(answer.content)
    middle, of_api = statistics.median(whole), statistics.median(inside)
    print(f"{page or '(overview)':48} {middle:8.1f} {max(whole):8.1f} {of_api:8.1f} {size / 1024:6.0f}")


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000])
    Timed.install()
    for count in parser.parse_args().rows:
        asyncio.run(measure(count))


if __name__ == "__main__":
    main()

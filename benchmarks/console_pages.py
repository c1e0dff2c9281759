"""What a page of the console costs, with 1,000 calls in the ledger and with 100,000.

python -m benchmarks.console_pages [--rows 1000 100000] [--waiting 30]

In process, without a socket: a real core and its real API on SQLite, asked as the console asks it. For each page: the
whole answer, and of it the time inside the API's own operations; the rest is the console's, templates above all. On a
machine that does other things too, the least of the times is nearest to what a page costs. `held`
is the longest that the event loop was held meanwhile, which the leader's lease feels. As many dead letters, rows of the
audit log and bookings of models as calls; `--waiting` of the calls wait. At the end the audit log is looked at whole.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import structlog
from sqlalchemy import Table, create_engine, insert, select

from orchestrator.audit.chain import link
from orchestrator.console.frame import Console
from orchestrator.console.inside import Answer, Inside, Query
from orchestrator.console.live import Pulse
from orchestrator.console.pages import PAGES
from orchestrator.console.session import Sessions
from orchestrator.ledger.audit_values import AuditEntry, AuditHead, Decision
from orchestrator.ledger.tables import ATTEMPTS, AUDIT, DEAD_LETTERS, INVOCATIONS, SPEND
from orchestrator.testing.core_app import app_of
from orchestrator.testing.protocol import Story
from tasks.clock import SystemClock

BASE, TOKEN = "http://127.0.0.1:8700", os.urandom(16).hex()
ROUNDS, BATCH, NODES, WAITING = 30, 2000, 20, 30
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
    "/queues",
    "/agents",
    "/approvals",
    "/dead-letters",
    "/dead-letters?reason=tool_error&project=p7",
    "/dead-letters?unanswered=true&tool=srv.t3",
    "/autoscaler",
    "/circuits",
    "/cost",
    "/cost?since=365d&by=day",
    "/objectives",
    "/audit",
    "/audit?target=nothing",
    "/audit?action=cancel&decision=refused",
    "/audit/verify",
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


def rows(count: int, waiting: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Calls of fifty projects, forty tools and twenty nodes, half a second apart; the newest have not ended."""
    dice, now = random.Random(7), time.time()
    for number in range(count):
        state = dice.choices(("succeeded", "failed", "lost", "expired", "cancelled"), (95, 2, 1, 1, 1))[0]
        state = "waiting" if number >= count - waiting else state
        is_over = number < count - waiting
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


def beside(count: int, head: AuditHead) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    """Dead letters, bookings and audit rows, in batches."""
    dice, now = random.Random(8), time.time()
    for first in range(0, count, BATCH):
        numbers = range(first, min(count, first + BATCH))
        yield DEAD_LETTERS, [letter(dice, number, now - (count - number) * 0.5) for number in numbers]
        yield SPEND, [booking(dice, number, now - (count - number) * 5.0) for number in numbers]
        entries = [
            AuditEntry("pause", Decision.ALLOWED, f"person-{number % 30}", target=f"p{number % 50}", peer="192.0.2.7")
            for number in numbers
        ]
        linked = link(entries, head, epoch=1, at_us=round(now * 1e6), new_chain="0" * 64)
        head = AuditHead(linked[-1].seq, linked[-1].hash)
        yield AUDIT, [asdict(row) for row in linked]


def letter(dice: random.Random, number: int, at: float) -> dict[str, Any]:
    """One of three kinds."""
    return {
        "invocation_id": f"id-{number:010d}",
        "tool": f"srv.t{dice.randrange(40)}",
        "project": f"p{dice.randrange(50)}",
        "tenant": "default",
        "ending": "failed",
        "reason": dice.choice(("tool_error", "permanent", "deadline")),
        "error_json": '{"code":"tool_error","message":"it said no","failure":"tool_error"}',
        "ended_at": at,
        "replayed_as": None,
    }


def booking(dice: random.Random, number: int, at: float) -> dict[str, Any]:
    """Of one of two models."""
    return {
        "invocation_id": f"id-{number:010d}",
        "fence": 1,
        "released_at": 0.0,
        "model": dice.choice(("big", "small")),
        "tenant": "default",
        "project": f"p{dice.randrange(50)}",
        "tool": "claude_code.run",
        "node": f"n{dice.randrange(NODES)}",
        "at": at,
        **dict.fromkeys(("requests", "input", "output", "cache_read", "cache_write"), 7),
        "cost_usd": 0.01,
        "is_estimated": False,
    }


def fill(folder: Path, count: int, waiting: int) -> None:
    """Straight into the tables."""
    engine, batch = create_engine(f"sqlite:///{folder / 'ledger.db'}"), []
    with engine.begin() as connection:
        newest = connection.execute(select(AUDIT.c.seq, AUDIT.c.hash).order_by(AUDIT.c.seq.desc()).limit(1)).one()
        for pair in rows(count, waiting):
            batch.append(pair)
            if len(batch) == BATCH or pair[0]["id"] == f"id-{count - 1:010d}":
                connection.execute(insert(INVOCATIONS), [call for call, _ in batch])
                connection.execute(insert(ATTEMPTS), [attempt for _, attempt in batch])
                batch.clear()
        for table, rows_of in beside(count, AuditHead(*newest)):
            connection.execute(insert(table), rows_of)
    engine.dispose()


class Held:
    """The longest that the event loop was held."""

    def __init__(self) -> None:
        self.longest_ms = 0.0

    async def feel(self) -> None:
        """Until cancelled."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest_ms = max(self.longest_ms, (time.perf_counter() - before) * 1000 - 1)


async def measure(count: int, waiting: int) -> None:
    """One ledger of so many rows."""
    with tempfile.TemporaryDirectory(prefix="mcpfleet-console-") as name:
        folder = Path(name)
        await (await Story.begin(folder, SystemClock())).end()  # type: ignore[arg-type]
        fill(folder, count, waiting)
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
            print(f"\n{count:,} calls, {waiting:,} of them wait".replace(",", " "))
            print(f"{'page':48} {'min ms':>8} {'p50 ms':>8} {'max ms':>8} {'API p50':>8} {'held':>8} {'KiB':>6}")
            for page in PAGES_ASKED:
                await one_page(http, page)
            await whole_audit(http)
        await story.end()


async def one_page(http: httpx.AsyncClient, page: str) -> None:
    """Ask it often."""
    whole, inside, size, held = [], [], 0, Held()
    feeling = asyncio.create_task(held.feel())
    for _ in range(ROUNDS):
        await asyncio.sleep(0.005)  # a page that never waits would not let it be felt
        Timed.spent_s, begun = 0.0, time.perf_counter()
        answer = await http.get(f"/console{page}")
        whole.append((time.perf_counter() - begun) * 1000)
        inside.append(Timed.spent_s * 1000)
        is_known = answer.status_code == httpx.codes.OK or page == "/queues"  # this fleet has no Redis
        assert is_known, (page, answer.status_code, answer.text[:300])
        size = len(answer.content)
    feeling.cancel()
    middle, of_api = statistics.median(whole), statistics.median(inside)
    times = f"{min(whole):8.1f} {middle:8.1f} {max(whole):8.1f} {of_api:8.1f} {held.longest_ms:8.1f}"
    print(f"{page or '(overview)':48} {times} {size / 1024:6.0f}")


async def whole_audit(http: httpx.AsyncClient) -> None:
    """One look at every row."""
    held, begun, known = Held(), time.perf_counter(), {"Authorization": f"Bearer {TOKEN}"}
    feeling = asyncio.create_task(held.feel())
    check = (await http.post("/v1/audit:verify", headers=known)).json()
    while check["is_running"]:
        await asyncio.sleep(0.2)
        check = (await http.get("/v1/audit:verify", headers=known)).json()
    feeling.cancel()
    took_s, report = time.perf_counter() - begun, check["report"]
    print(f"audit log looked at: {report['rows']} rows in {took_s:.1f} s, loop held {held.longest_ms:.1f} ms at most")


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--waiting", type=int, default=WAITING)
    Timed.install()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    given = parser.parse_args()
    for count in given.rows:
        asyncio.run(measure(count, min(count, given.waiting)))


if __name__ == "__main__":
    main()

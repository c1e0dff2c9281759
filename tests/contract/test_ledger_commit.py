"""Group commit: shared transactions, neighbours that do not harm each other, and outages survived."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import Connection, connect
from sqlalchemy import text
from sqlalchemy.engine import make_url

from orchestrator.ledger import fleet_rows
from orchestrator.ledger.database import Session
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import accepted, new, release_of, released, success
from orchestrator.ledger.transaction import Hot, Tx
from orchestrator.ledger.values import NodeRow
from tasks.errors import LedgerDown, NotFound
from tasks.invocation import State
from tasks.testing.clock import FakeClock

NODE = NodeRow("n1", "default", "inc-1", 1, "active", "{}", "key", "digest", 0.0)
ACCEPT_AND_DIE = """
import asyncio, os, sys
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import accepted, new
from tasks.testing.clock import FakeClock

async def main():
    ledger = await Ledger.open(sys.argv[1], clock=FakeClock())
    print(*await accepted(ledger, new()), flush=True)
    os._exit(9)

asyncio.run(main())
"""


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every commit of the writer."""
    seen: list[int] = []
    commit = Session.commit

    def counted(self: Session) -> None:
        commit(self)
        seen.append(1)

    monkeypatch.setattr(Session, "commit", counted)
    return seen


async def test_one_turns_operations_share_one_commit(ledger: Ledger, commits: list[int]) -> None:
    """Two hundred callers at once cost one transaction, not two hundred, whatever they do."""
    rows = [new() for _ in range(100)]
    await ledger.accept(rows)
    ids = [row.invocation.id for row in rows]
    await released(ledger, ids)
    commits.clear()
    answers = await asyncio.gather(
        *(ledger.settle([success(one)]) for one in ids), *(ledger.accept([new()]) for _ in range(100))
    )
    assert len(answers) == 200
    assert len(commits) == 1


async def test_many_callers_each_get_their_own_answer(ledger: Ledger) -> None:
    """Whole lives, two hundred at a time, end with each caller knowing its own Invocation."""
    epoch = await ledger.take_epoch("orchestrator-1", 60.0)
    assert epoch is not None

    async def live(name: str) -> tuple[str, str | None]:
        (one,) = await accepted(ledger, new(arguments_json=f'"{name}"'))
        (out,) = await ledger.release([release_of(one)], epoch)
        (settled,) = await ledger.settle([success(one)])
        assert settled.took
        assert settled.invocation_id == one
        return name, out and out.arguments_json

    lives = await asyncio.gather(*(live(f"call-{number}") for number in range(200)))
    assert all(arguments == f'"{name}"' for name, arguments in lives)
    assert await ledger.waiting() == await ledger.outstanding() == []


async def test_an_operation_that_raises_takes_only_itself_down(ledger: Ledger) -> None:
    """What it wrote is undone; what its neighbours wrote is committed."""

    def write_then_fail(tx: Tx) -> None:
        fleet_rows.save_node(tx, NODE)
        raise ZeroDivisionError

    before, after = new(), new()
    answers = await asyncio.gather(
        ledger.accept([before]), ledger._small(write_then_fail), ledger.accept([after]), return_exceptions=True
    )
    assert isinstance(answers[1], ZeroDivisionError)
    assert [(await ledger.get(row.invocation.id)).state for row in (before, after)] == [State.WAITING] * 2
    assert await ledger.nodes() == []


async def test_a_cancelled_caller_does_not_harm_the_writer(ledger: Ledger) -> None:
    """Callers that go away, before or while their group runs, leave the others their answers."""
    is_running, may_go_on = threading.Event(), threading.Event()

    def hold(_: Tx) -> None:
        is_running.set()
        assert may_go_on.wait(10)

    rows = [new() for _ in range(3)]
    before, during, staying = (asyncio.create_task(ledger.accept([row])) for row in rows)
    holding = asyncio.create_task(ledger._small(hold))
    await asyncio.sleep(0)
    before.cancel()
    await asyncio.to_thread(is_running.wait, 10)
    during.cancel()
    may_go_on.set()
    assert [one.is_new for one in await staying] == [True]
    await holding
    assert [task.cancelled() for task in (before, during)] == [True, True]
    waiting = {one.id for one in await ledger.waiting()}
    assert waiting == {row.invocation.id for row in rows[1:]}, "who went before it began is left out of the group"


async def test_closing_finishes_what_was_submitted(ledger: Ledger, ledger_url: str, clock: FakeClock) -> None:
    """An operation that was under way when the ledger closed is durable; later ones fail clearly."""
    row = new()
    under_way = asyncio.create_task(ledger.accept([row]))
    await asyncio.sleep(0)
    await ledger.close()
    await ledger.close()
    assert (await under_way)[0].is_new
    for refused in (ledger.accept([new()]), ledger.get(row.invocation.id)):
        with pytest.raises(LedgerDown, match="closed"):
            await refused
    reopened = await Ledger.open(ledger_url, clock=clock)
    assert (await reopened.get(row.invocation.id)).state is State.WAITING
    await reopened.close()


async def test_accepted_survives_a_crash(ledger: Ledger, ledger_url: str) -> None:
    """A process that dies right after accept answered has lost nothing of it."""
    died = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", ACCEPT_AND_DIE, ledger_url], check=False, capture_output=True, text=True
    )
    assert died.returncode == 9, died.stderr
    assert (await ledger.get(died.stdout.strip())).state is State.WAITING


class Locked:
    """SQLite: another process keeps the write lock."""

    def __init__(self, url: str) -> None:
        self._other = sqlite3.connect(make_url(url).database or "", isolation_level=None)

    def begin(self) -> None:
        """Nobody can write."""
        self._other.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        """Everybody can again."""
        if self._other.in_transaction:
            self._other.execute("ROLLBACK")

    def close(self) -> None:
        """Give up the connection."""
        self._other.close()


class Refusing:
    """PostgreSQL: connections are cut, and new ones refused."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        admin = parsed.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
        self._name = parsed.database or ""
        self._admin: Connection[Any] = connect(admin, autocommit=True)

    def begin(self) -> None:
        """Cut and refuse."""
        self._admin.execute(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS false'.encode())
        self.cut()

    def cut(self) -> None:
        """Only cut what is connected, and wait until it is gone."""
        self._admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [self._name]
        )

    def end(self) -> None:
        """Let them in again."""
        self._admin.execute(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS true'.encode())

    def close(self) -> None:
        """Give up the connection."""
        self._admin.close()


@pytest.fixture
async def outage(ledger: Ledger, ledger_url: str) -> AsyncIterator[Locked | Refusing]:
    """A way to take the database down and up."""
    made = (Locked if ledger_url.startswith("sqlite") else Refusing)(ledger_url)
    yield made
    made.end()
    made.close()


async def test_an_outage_is_told_and_survived(ledger: Ledger, outage: Locked | Refusing) -> None:
    """Everyone who waits learns that the ledger is down; once it is up, it works again by itself."""
    (known,) = await accepted(ledger, new())
    lost = [new() for _ in range(5)]
    outage.begin()
    answers = await asyncio.gather(*(ledger.accept([row]) for row in lost), return_exceptions=True)
    assert [type(answer) for answer in answers] == [LedgerDown] * 5
    outage.end()
    (fresh,) = await accepted(ledger, new())
    assert {one.id for one in await ledger.waiting()} == {known, fresh}
    with pytest.raises(NotFound):
        await ledger.get(lost[0].invocation.id)


@pytest.mark.live("postgres")
@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
async def test_a_connection_that_died_unnoticed_costs_nothing(ledger: Ledger, outage: Refusing) -> None:
    """PostgreSQL was restarted between two groups: nobody who calls later needs to know."""
    (one,) = await accepted(ledger, new())
    await ledger.get(one)
    outage.cut()
    assert (await ledger.get(one)).state is State.WAITING
    assert len(await accepted(ledger, new())) == 1


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
async def test_a_full_disk_is_told_and_survived(ledger: Ledger) -> None:
    """No room, as SQLite's page limit: nothing is accepted, and what was accepted before is intact."""
    (known,) = await accepted(ledger, new())
    await ledger._small(lambda tx: tx.all(Hot(text("PRAGMA max_page_count = 1")), {}))
    with pytest.raises(LedgerDown, match="full"):
        await ledger.accept([new(arguments_json="x" * 1_000_000)])
    assert [one.id for one in await ledger.waiting()] == [known]
    assert len(await accepted(ledger, new(arguments_json="x" * 1_000_000))) == 1


async def test_two_orchestrators_may_share_one_ledger(ledger: Ledger, ledger_url: str, clock: FakeClock) -> None:
    """Two writers at once, one key each time: one row, one truth, no error."""
    other = await Ledger.open(ledger_url, clock=clock)
    try:
        for number in range(10):
            key = f"key-{number}"
            answers = await asyncio.gather(
                ledger.accept([new(idempotency_key=key), new()]), other.accept([new(idempotency_key=key), new()])
            )
            assert len({answer[0].invocation_id for answer in answers}) == 1
            assert sum(answer[0].is_new for answer in answers) == 1
    finally:
        await other.close()


async def test_the_writer_leaves_no_thread_behind(ledger_url: str, clock: FakeClock) -> None:
    """A closed ledger has ended its threads and let go of its files."""
    opened = await Ledger.open(ledger_url, clock=clock)
    await accepted(opened, new())
    await opened.close()
    assert not opened._writer._thread.is_alive()
    assert opened._writer._session is None

"""The console's pages of machines and of records: autoscaler, circuits, cost, objectives, audit."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.health.breaker import THRESHOLD
from orchestrator.ledger.values import Booking
from orchestrator.testing.protocol import UNSAFE
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.spend import Spend
from tasks.testing.clock import FakeClock
from tests.contract.console_rig import Field, opened

BROKEN = Outcome("failed", error=ErrorInfo("connection_lost", "it ended <b>badly</b>", Failure.MAYBE_STARTED))
DONE = Outcome("succeeded", result_json='{"content":[]}')


@pytest.fixture
async def it(tmp_path: Path, clock: FakeClock, sqlite_template: Path) -> AsyncIterator[Field]:
    """A console, and a node."""
    shutil.copy(sqlite_template, tmp_path / "ledger.db")
    async with opened(tmp_path, clock) as field:
        await field.story.join("a1")
        yield field


async def ends(it: Field, outcome: Outcome, tool: str = UNSAFE, **call: str) -> str:
    """A call that ran and ended so; its id."""
    made = await it.call(tool, **call)
    (delivery,) = await it.story.release()
    await it.story.finish("a1", delivery, outcome)
    return made


def words(page: str) -> str:
    """What a reader sees, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition("<main")[2]))


# ---------------------------------------------------------------- autoscaler


async def test_the_autoscaler_says_how_many_and_why(it: Field) -> None:
    """Machines now, wanted and allowed, what they cost, the last decision's reasons; every machine with its state."""
    page = words((await (await it.person("developer")).get("/autoscaler")).text)
    for said in ("2 now", "1 wanted", "1 to 6 allowed", "€0.0226", "budget €0.50", "Since midnight", "slo → 1"):
        assert said in page, said
    for said in ("builders-bcdefghijk", "booting", "ready", "it has not joined within 900 s"):
        assert said in page, said
    assert "Hold" not in page


async def test_a_pools_past_is_told_change_by_change_and_paged(it: Field) -> None:
    """Moments that decided the same are one; a change says from how many to how many, and what was seen."""
    browser = await it.person("operator")
    page = (await browser.get("/autoscaler/builders")).text
    said = words(page)
    assert "the same" in said
    assert re.search(r"1 → [2-6]", said)
    assert "Oldest wait" in said
    assert page.count('class="card decision"') < 30
    assert (await browser.get("/autoscaler/nobody")).status_code == 404
    until = it.story.clock.wall_s() - 3600
    past = words((await browser.get(f"/autoscaler/builders?until={until}")).text)
    assert "Newest" in past


async def test_a_hold_has_a_size_and_an_end(it: Field) -> None:
    """It is said to the API with both, is shown, and is lifted; what is no size or no time is refused in words."""
    browser = await it.person("operator")
    after = await browser.submit("/autoscaler/builders/hold", {"target": "4", "for": "2h"})
    assert "held at 4 machines until 2027-01-15 10:00:00 UTC" in words(after.text)
    assert "default-operator holds it at 4 machines for another 2 h 00 m" in words(
        (await browser.get("/autoscaler")).text
    )
    for form, said in (
        ({"target": "many", "for": "2h"}, "no number of machines"),
        ({"target": "4", "for": "soon"}, "no duration"),
        ({"target": "4", "for": "90d"}, "for_s"),
    ):
        refused = await browser.post("/autoscaler/builders/hold", form)
        assert (refused.status_code, said in words(refused.text)) == (422, True), words(refused.text)
    assert "The policy sizes pool builders again" in words((await browser.submit("/autoscaler/builders/lift")).text)


async def test_a_dry_run_is_marked_on_the_page(it: Field) -> None:
    """And taken back in the same place."""
    browser = await it.person("operator")
    assert "Dry run. It decides and says" in words((await browser.submit("/autoscaler/dry-run")).text)
    assert "Let the autoscaler act again?" in (await browser.get("/autoscaler/dry-run")).text
    assert "Dry run. It decides" not in words((await browser.submit("/autoscaler/dry-run")).text)


# ---------------------------------------------------------------- circuits


async def test_an_open_circuit_says_since_when_why_and_until_when(it: Field, clock: FakeClock) -> None:
    """Closed ones are counted; what a server said of its end is text."""
    browser = await it.person("developer")
    assert "All circuits of 1 node are closed" in words((await browser.get("/circuits")).text)
    for _ in range(THRESHOLD):
        await ends(it, BROKEN)
        clock.advance(0.01)
    await it.story.join("b1")
    page = (await browser.get("/circuits")).text
    assert "<b>badly" not in page
    said = words(page)
    for word in ("1 circuit: 1 open", "files", "5 of 5", "it ended &lt;b&gt;badly", "in 60.0 s", "1 of 2 nodes"):
        assert word in said, word


# ---------------------------------------------------------------- cost


async def test_costs_are_summed_by_what_one_asks_for(it: Field) -> None:
    """With what was without a price said, never as 0; by day for one project."""
    node, story = "a1", it.story
    for project, model, cost in (("shop", "big", 1.5), ("shop", "odd", None), ("bank", "big", 0.25)):
        call = await ends(it, DONE, project=project)
        spent = (Spend(model, 3, 1000, 200, 0, 0, cost),)
        await story.core.stores.ledger.book([Booking(call, 1, node, story.clock.wall_s(), spent)])
    browser = await it.person("developer")
    page = words((await browser.get("/cost")).text)
    for said in ("$1.75", "3 requests are not in these sums", "shop $1.50 + 3 without a price", "bank $0.2500"):
        assert said in page, said
    assert "big $1.75" in words((await browser.get("/cost?by=model")).text)
    assert "2027-01-15" in words((await browser.get("/cost?by=day&project=shop")).text)
    assert "bank" not in words((await browser.get("/cost?by=project&project=shop")).text)
    assert "Nothing was spent" in words((await browser.get("/cost?project=other")).text)
    assert "no time" in words((await browser.get("/cost?since=whenever")).text)


# ---------------------------------------------------------------- objectives


async def test_objectives_say_target_measured_and_budget_left(it: Field, clock: FakeClock) -> None:
    """In numbers and words; without a sample it says so."""
    browser = await it.person("developer")
    assert "no sample yet" in words((await browser.get("/objectives")).text)
    await ends(it, DONE)
    page = words((await browser.get("/objectives")).text)
    for said in ("Target 99.9 %", "0 bad of 1", "met", "Budget left 100 %"):
        assert said in page, said


# ---------------------------------------------------------------- audit


async def test_the_audit_log_is_searched_and_finds_who_cancelled(it: Field, clock: FakeClock) -> None:
    """By what was done and to what; by outcome; by time, as people write it."""
    call = await it.call(UNSAFE, project="shop")
    developer = await it.person("developer")
    await developer.submit(f"/calls/{call}/cancel")
    clock.advance(7200.0)
    await it.api("GET", "/v1/audit", it.keys["default", "developer"]["key"])
    browser = await it.person("auditor")
    found = words((await browser.get(f"/audit?action=cancel&target={call}")).text)
    assert f"default-developer cancel {call}" in found
    refused = words((await browser.get("/audit?decision=refused")).text)
    assert "default-developer list_audit" in refused
    assert "cancel" not in refused.partition("More")[2]
    assert "No row of the audit log is like that" in words((await browser.get("/audit?action=cancel&since=1h")).text)
    assert call in (await browser.get("/audit?action=cancel&until=2027-01-15 09:00")).text
    wrong = await browser.get("/audit?since=yesterday")
    assert (wrong.status_code, "write how long ago" in wrong.text) == (422, True)


async def test_a_thousand_rows_are_paged(it: Field) -> None:
    """By cursor, newest first; the filter goes along."""
    for number in range(60):
        await it.api("POST", "/v1/pauses", json={"kind": "project", "name": f"p{number}", "is_paused": True})
    browser = await it.person("admin")
    first = (await browser.get("/audit?action=pause")).text
    (older,) = [one for one in re.findall(r'href="/console([^"]+)"', first) if "cursor=" in one]
    assert "action=pause" in older
    second = (await browser.get(older.replace("&amp;", "&"))).text
    names = [set(re.findall(r"\bp\d+\b", words(page))) for page in (first, second)]
    assert [len(found) for found in names] == [50, 10]
    assert names[0] | names[1] == {f"p{number}" for number in range(60)}


async def test_the_log_is_verified_on_demand(it: Field, tmp_path: Path) -> None:
    """Sound with how far it is signed; and what was altered, with the row."""
    browser = await it.person("auditor")
    assert "Nobody asked since" in words((await browser.get("/audit/verify")).text)
    assert "The audit log is sound" in words((await browser.submit("/audit/verify/now")).text)
    await it.api("POST", "/v1/pauses", json={"kind": "project", "name": "shop", "is_paused": True})
    with sqlite3.connect(tmp_path / "ledger.db") as thief:
        for (guard,) in thief.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            thief.execute(f"DROP TRIGGER {guard}")
        thief.execute("UPDATE mcpfleet_audit SET actor = 'nobody' WHERE action = 'pause'")
    thief.close()
    assert "The audit log is sound" in words((await browser.get("/audit/verify")).text), "as of then"
    page = words((await browser.submit("/audit/verify/now")).text)
    assert "The audit log was altered" in page
    assert "was edited" in page

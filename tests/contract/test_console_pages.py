"""The console's pages on a real core: every page for every role, and nothing of anybody else's."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.api.settings import ApiSettings
from orchestrator.console.pages import PAGES
from orchestrator.testing.secrets import new_ring
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.testing.clock import FakeClock
from tests.contract.console_rig import OPERATOR, ROLES, Field, opened

HOSTILE = "<script>alert(1)</script>{{ 7*7 }}{% raw %}\"'&"


@pytest.fixture
async def it(tmp_path: Path, clock: FakeClock, sqlite_template: Path) -> AsyncIterator[Field]:
    """A fleet of one node with one slot: a call that failed, one that runs, one that waits."""
    shutil.copy(sqlite_template, tmp_path / "ledger.db")
    async with opened(tmp_path, clock) as field:
        await field.story.join("a1", slots=1)
        yield field


async def failed(it: Field, message: str = "boom", token: str = OPERATOR, **more: str) -> str:
    """A call that ended badly; its id."""
    one = await it.call(token=token, **more)
    (delivery,) = await it.story.release()
    error = ErrorInfo("tool_failed", message, Failure.PERMANENT)
    await it.story.finish("a1", delivery, Outcome("failed", error=error))
    return one


def addresses(call: str) -> list[str]:
    """Every page and every question, with something in the place of each name."""
    places = {"{id}": call, "{name}": "a1", "{kind}": "pool"}
    found = []
    for page in PAGES:
        for path in (page.path, *(act.path for act in page.acts)):
            for mark, word in places.items():
                path = path.replace(mark, word)  # noqa: PLW2901
            found.append(path)
    return found


@pytest.mark.parametrize("role", ROLES)
async def test_no_page_breaks_for_any_role(it: Field, role: str) -> None:
    """Shown, or refused with a sentence; and what the navigation shows is there."""
    call = await failed(it)
    await it.call(project="shop")
    person = await it.person(role)
    for path in addresses(call):
        answer = await person.get(path)
        assert answer.status_code in {200, 403, 404, 409, 503}, (path, answer.text)
        assert "an error in the orchestrator" not in answer.text, path
        part = await person.get(path, **{"HX-Request": "true"})
        assert part.status_code in {200, 403, 404, 409, 503}, path
    home = await person.get("")
    shown = [page.path for page in PAGES if page.group and f'href="/console{page.path}"' in home.text]
    assert "/calls" in shown or role not in {"admin", "operator", "developer", "auditor"}
    for path in shown:
        assert (await person.get(path)).status_code in {200, 503}, path  # 503: this fleet has no Redis


async def test_who_may_only_look_is_offered_no_button_and_refused_every_form(it: Field) -> None:
    """The API would refuse it too; the console neither offers nor asks."""
    call = await failed(it)
    auditor = await it.person("auditor")
    for path in ("", "/fleet", "/calls", f"/calls/{call}"):
        page = (await auditor.get(path)).text
        for act in (act for one in PAGES for act in one.acts):
            assert act.path.rpartition("/")[2] + '"' not in page.partition("<main")[2], (path, act.path)
    before = (await it.api("GET", "/v1/nodes")).json()
    for path in ("/fleet/a1/drain", "/queues/pool/east/pause", f"/calls/{call}/retry"):
        assert (await auditor.get(path)).status_code == 403
        refused = await auditor.post(path)
        assert refused.status_code == 403
        assert "needs the scope" in refused.text
    assert (await it.api("GET", "/v1/nodes")).json() == before


async def test_another_tenants_calls_are_not_there(it: Field) -> None:
    """Not in a list, not by their address, not to be cancelled, and their names nowhere on any page."""
    theirs = await it.person("admin", "rival")
    rival_key = it.keys["rival", "admin"]["key"]
    call = await failed(it, "canary-words", OPERATOR, project="canary-shop")
    own = await it.call(token=rival_key, project="their-own")
    for path in addresses(call):
        answer = await theirs.get(path)
        assert "canary" not in answer.text, path
    assert (await theirs.get(f"/calls/{call}")).status_code == 404
    assert (await theirs.post(f"/calls/{call}/retry")).status_code == 404
    assert own in (await theirs.get("/calls")).text


async def test_words_of_others_are_shown_and_never_run(it: Field) -> None:
    """A tool's error, a node's location and a filter are text, whatever stands in them; neither HTML nor template."""
    call = await failed(it, HOSTILE)
    await it.story.join("b1", location=HOSTILE)
    person = await it.person("admin")
    for path in (
        "",
        "/calls",
        "/fleet",
        f"/calls/{call}",
        f"/calls?tool={HOSTILE}&project={HOSTILE}&node={HOSTILE}",
        f"/{HOSTILE}",
    ):
        page = (await person.get(path)).text
        assert "<script>alert" not in page, path
        assert "alert(1)&lt;/script&gt;49" not in page, path
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7*7 }}" in (await person.get(f"/calls/{call}")).text


async def test_what_a_node_says_of_itself_is_shown_and_never_run(it: Field) -> None:
    """Its notes, what is not well there and its version: a node is somebody else's machine."""
    await it.story.join("b1", slots=2)
    member = it.story.core.roster.get("b1")
    said = {"files": HOSTILE, HOSTILE: "x"}
    slots = {**member.offer.slots, "agents": 2}
    changed = {"notes": said, "unhealthy": said, "version": HOSTILE, "slots": slots}
    member.offer = member.offer.model_copy(update=changed)
    person = await it.person("admin")
    for path in ("", "/fleet", "/circuits", "/agents"):
        page = (await person.get(path)).text
        assert "<script>alert" not in page, path
        assert "alert(1)&lt;/script&gt;49" not in page, path
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7*7 }}" in (await person.get("/agents")).text


async def test_a_calls_life_is_told_in_order(it: Field) -> None:
    """Accepted, released, started, ended, with its reasons, its error and what may be done."""
    call = await failed(it, "the disk is full", project="shop")
    page = (await (await it.person("operator")).get(f"/calls/{call}")).text
    places = [page.index(word) for word in ("accepted", "released to a1", "failed</strong>", "the disk is full [")]
    assert places == sorted(places)
    assert f"/calls/{call}/retry" in page
    assert f"/calls/{call}/cancel" not in page


async def test_a_call_shows_what_it_was_called_with(it: Field) -> None:
    """Each argument as text; what could deceive a reader is escaped; fetched once, for they do not change."""
    hostile = {"sql": f"select 1 -- \u202e{HOSTILE}", HOSTILE: {"deep": [1, None]}}
    call = await it.call(arguments=hostile)
    person = await it.person("developer")
    page = (await person.get(f"/calls/{call}")).text
    assert "<script>alert" not in page
    assert "alert(1)&lt;/script&gt;49" not in page
    assert "\u202e" not in page
    assert "select 1 -- " in page
    assert "&#34;deep&#34;" in page
    part = (await person.get(f"/calls/{call}", **{"HX-Request": "true"})).text
    assert "select 1" not in part
    assert 'id="arguments"' in part
    assert "It has none." in (await person.get(f"/calls/{await it.call()}")).text


async def test_arguments_that_are_too_long_for_a_page_are_named_and_not_shown(it: Field) -> None:
    """They are in the blob store, and the page says how to get them."""
    call = await it.call(arguments={"text": "canary " * 20_000})
    page = (await (await it.person("developer")).get(f"/calls/{call}")).text
    assert "canary" not in page
    assert f"/v1/invocations/{call}/arguments" in page
    whole = (await it.api("GET", f"/v1/invocations/{call}/arguments")).json()
    assert whole["arguments"]["text"].startswith("canary ")
    assert whole["size_bytes"] > 140_000
    cut = (await it.api("GET", f"/v1/invocations/{call}/arguments?max_bytes=1000")).json()
    assert (cut["arguments"], cut["size_bytes"]) == (None, whole["size_bytes"])


async def test_sealed_arguments_are_opened_for_who_may_read_them(
    tmp_path: Path, clock: FakeClock, sqlite_template: Path
) -> None:
    """In the database they are not to be read; a page whose arguments do not open is shown without them."""
    folder = tmp_path / "sealed"
    folder.mkdir()
    shutil.copy(sqlite_template, folder / "ledger.db")
    async with opened(folder, clock, keys=new_ring("k1")) as sealed:
        await sealed.story.join("a1")
        call = await sealed.call(arguments={"city": "canary-town"})
        assert b"canary-town" not in b"".join(one.read_bytes() for one in folder.glob("ledger.db*"))
        person = await sealed.person("developer")
        assert "canary-town" in (await person.get(f"/calls/{call}")).text
        sealed.story.core.stores.ledger.with_keys(new_ring("k2"), seals=True)  # type: ignore[attr-defined]
        page = await person.get(f"/calls/{call}")
        assert (page.status_code, "cannot be opened" in page.text) == (200, True)


async def test_a_call_names_its_trace_and_where_its_log_lines_are(
    tmp_path: Path, clock: FakeClock, sqlite_template: Path
) -> None:
    """A link where the fleet knows of a place for traces, the bare id where not; and the command that finds lines."""
    folder = tmp_path / "traced"
    folder.mkdir()
    shutil.copy(sqlite_template, folder / "ledger.db")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for url, shown in (
        ("", f">{trace}<"),
        ("https://tempo.example/t/{trace_id}", f'"https://tempo.example/t/{trace}"'),
    ):
        async with opened(folder, clock, ApiSettings(trace_url=url)) as field:
            await field.story.join("a1")
            call = await field.call(trace_id=trace)
            page = (await (await field.person("developer")).get(f"/calls/{call}")).text
            assert shown in page
            assert ("tempo.example" in page) is bool(url)
            assert f"mcpfleet logs {call}" in page


async def test_why_a_call_waits_is_said_on_three_pages(it: Field) -> None:
    """On its own, on the first page, and in the words of `mcpfleet why`."""
    for _ in range(40):
        await it.call()
    await it.story.release()  # of calls of one moment any may be first
    (newest,) = (await it.api("GET", "/v1/invocations?state=waiting&limit=1")).json()["items"]
    waiting = newest["id"]
    why = (await it.api("GET", f"/v1/invocations/{waiting}/why")).json()["summary"]
    operator = await it.person("operator")
    assert why in (await operator.get(f"/calls/{waiting}")).text
    assert why in (await operator.get("")).text


async def test_a_call_is_cancelled_and_called_again(it: Field) -> None:
    """Each after a question, and each lands where its result is seen."""
    operator = await it.person("operator")
    await it.call()
    await it.story.release()
    waiting = await it.call()
    page = await operator.submit(f"/calls/{waiting}/cancel")
    assert "The call is cancelled." in page.text
    again = await operator.submit(f"/calls/{waiting}/retry")
    assert "is called again as" in again.text
    assert f'href="/console/calls/{waiting}"' in again.text


async def test_filters_are_in_the_address_and_narrow_the_list(it: Field, clock: FakeClock) -> None:
    """By project, principal, state and how long it took; what was chosen stays chosen."""
    bad = await failed(it, project="shop")
    waiting = await it.call(project="other")
    operator = await it.person("operator")
    for query, seen, unseen in (
        ("project=shop", bad, waiting),
        ("state=bad", bad, waiting),
        ("state=open", waiting, bad),
        ("state=failed&state=lost", bad, waiting),
        ("project=other&state=waiting", waiting, bad),
        ("tool=files.read&project=shop", bad, waiting),
        ("node=a1", bad, waiting),
    ):
        page = (await operator.get(f"/calls?{query}")).text
        assert seen in page, query
        assert unseen not in page, query
    clock.advance(120.0)
    page = (await operator.get("/calls?took=60")).text
    assert waiting in page
    assert bad not in page
    assert '<option value="60" selected>' in page
    assert "No call fits" in (await operator.get("/calls?principal=nobody")).text
    assert (await operator.get("/calls?state=nonsense")).status_code == 422


async def test_older_calls_are_a_page_away_and_filters_come_along(it: Field) -> None:
    """Fifty a page; the way back to the newest is there too."""
    for number in range(55):
        await it.call(project="shop", idempotency_key=f"n{number}")
    operator = await it.person("operator")
    first = (await operator.get("/calls?project=shop")).text
    assert first.count('<tr id="call-') == 50
    older = first.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0].replace("&amp;", "&")
    second = (await operator.get(older.removeprefix("/console"))).text
    assert second.count('<tr id="call-') == 5
    assert 'href="/console/calls?project=shop"' in second


async def test_the_first_page_says_what_needs_somebody(it: Field, clock: FakeClock) -> None:
    """Worst first, in words; and nothing where nothing does."""
    operator = await it.person("operator")
    assert "Nothing needs you now." in (await operator.get("")).text
    await operator.submit("/fleet/a1/cordon")
    await operator.submit("/queues/project/shop/pause")
    page = (await operator.get("")).text
    assert "Node a1 is cordoned" in page
    assert "Project shop is paused" in page
    assert "The fleet works; something wants a look." in page


async def test_a_page_is_whole_or_its_live_part_alone(it: Field) -> None:
    """What is fetched again has no frame, and the same content."""
    operator = await it.person("operator")
    whole = (await operator.get("/fleet")).text
    part = (await operator.get("/fleet", **{"HX-Request": "true"})).text
    assert "<nav" in whole
    assert "<nav" not in part
    assert "<html" not in part
    assert 'id="node-a1"' in part


async def test_a_dead_letter_wants_a_look_until_it_is_replayed(it: Field) -> None:
    """The first page does not say that nothing needs anybody while one waits."""
    operator = await it.person("operator")
    assert "All is well" in (await operator.get("")).text
    call = await failed(it)
    home = (await operator.get("")).text
    assert "1 dead letter waits for a decision." in html.unescape(home)
    assert "All is well" not in home
    await operator.submit(f"/dead-letters/{call}/replay")
    assert "for a decision" not in (await operator.get("")).text


async def test_the_fleets_own_address_leads_to_the_console(it: Field) -> None:
    """Somebody types the host and nothing else."""
    answer = await it.browser().http.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")


async def test_what_the_first_page_leads_to_is_there(it: Field) -> None:
    """Its numbers and sentences are links, each to a page that answers."""
    call = await failed(it)
    await it.call(project="shop")
    operator = await it.person("operator")
    await operator.submit("/fleet/a1/cordon")
    home = (await operator.get("")).text.partition("<main")[2]
    links = {html.unescape(one) for one in re.findall(r'href="/console([^"]*)"', home)}
    assert {"/dead-letters", "/autoscaler", "/cost", "/fleet", f"/calls/{call}"} <= links
    for path in links:
        assert (await operator.get(path)).status_code == 200, path


@pytest.mark.parametrize("path", ["/cost?since=99999999d", "/audit?since=99999999d", "/dead-letters?until=1e308"])
async def test_a_time_beyond_all_calendars_is_refused_with_a_sentence(it: Field, path: str) -> None:
    """Whoever writes an address by hand gets an answer, and no error of ours."""
    auditor = await it.person("auditor")
    assert (await auditor.get(path)).status_code in {200, 422}


async def test_a_size_that_no_fleet_has_is_no_size(it: Field) -> None:
    """Thousands of digits are no number that is worth reading."""
    operator = await it.person("operator")
    await operator.get("/autoscaler/builders/hold")
    for target in ("9" * 5000, "²", "٣"):
        refused = await operator.post("/autoscaler/builders/hold", {"target": target, "for": "1h"})
        assert (refused.status_code, "no number of machines" in refused.text) == (422, True)


async def test_a_call_with_an_end_beyond_all_calendars_has_its_page(it: Field) -> None:
    """Callers choose deadlines."""
    call = await it.call(expires_at=9e15)
    assert (await (await it.person("operator")).get(f"/calls/{call}")).status_code == 200

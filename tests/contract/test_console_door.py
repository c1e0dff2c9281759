"""The console's door: logging in and out, and who else may send a form."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.api.edges import EdgeRules
from orchestrator.api.settings import ApiSettings
from orchestrator.console import live
from orchestrator.console.session import LASTS_S
from tasks.testing.clock import FakeClock
from tests.contract.console_rig import BASE, IDLE_S, OPERATOR, Browser, Field, opened


@pytest.fixture
async def it(tmp_path: Path, clock: FakeClock, sqlite_template: Path) -> AsyncIterator[Field]:
    """A console and nobody in it."""
    shutil.copy(sqlite_template, tmp_path / "ledger.db")
    async with opened(tmp_path, clock) as field:
        await field.story.join("a1")
        yield field


def cookie_of(browser: Browser) -> str:
    """The session's cookie."""
    (name,) = [name for name in browser.http.cookies if name.startswith("mcpfleet_") and "note" not in name]
    return str(browser.http.cookies[name])


async def test_a_key_opens_the_console_and_its_cookie_shows_nothing(it: Field) -> None:
    """The cookie is sealed, strict, for scripts invisible, and for the console alone."""
    browser = it.browser()
    sent_away = await browser.get("/fleet")
    assert (sent_away.status_code, sent_away.headers["location"]) == (303, "/console/login?next=%2Fconsole%2Ffleet")
    key = (await it.key("operator"))["key"]
    answer = await browser.log_in(key, "/login?next=/console/fleet")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/fleet")
    said = answer.headers["set-cookie"]
    for word in ("HttpOnly", "SameSite=strict", "Path=/console"):
        assert word in said
    assert key not in said
    page = await browser.get("/fleet")
    assert page.status_code == 200
    assert "a1" in page.text
    assert key not in page.text


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_under_tls_the_cookie_is_for_tls_alone(
    tmp_path: Path, clock: FakeClock, sqlite_template: Path, scheme: str
) -> None:
    """A cookie that a plain request could carry could be read on the way.

    Also behind a proxy that ends TLS and whose headers are not believed: there the browser's own Origin says how it
    came, and its cookie's name does from then on.
    """
    shutil.copy(sqlite_template, tmp_path / "ledger.db")
    served = "https://fleet.example.com"
    async with opened(tmp_path, clock, ApiSettings(edges=EdgeRules(origins=(served,)))) as it:
        browser = it.browser(base=f"{scheme}://fleet.example.com")
        answer = await browser.http.post("/console/login", data={"credential": OPERATOR}, headers={"Origin": served})
        assert answer.status_code == 303
        said = answer.headers["set-cookie"]
        assert "; Secure" in said
        assert said.startswith("__Secure-")
        kept = {"Cookie": said.partition(";")[0]}
        assert "<h1>Overview" in (await browser.http.get("/console", headers=kept)).text
        clock.advance(120.0)
        renewed = (await browser.http.get("/console", headers=kept)).headers["set-cookie"]
        assert renewed.startswith("__Secure-")
        assert "; Secure" in renewed


async def test_a_form_of_a_plain_page_does_nothing_where_the_console_has_tls(
    tmp_path: Path, clock: FakeClock, sqlite_template: Path
) -> None:
    """Whoever sits on the way writes plain pages of any name, also of ours."""
    shutil.copy(sqlite_template, tmp_path / "ledger.db")
    both = ("https://fleet.example.com", "http://fleet.example.com")
    async with opened(tmp_path, clock, ApiSettings(edges=EdgeRules(origins=both))) as it:
        browser = it.browser(base=both[0])
        for origin, status in zip(both, (303, 403), strict=True):
            form = {"credential": OPERATOR}
            answer = await browser.http.post("/console/login", data=form, headers={"Origin": origin})
            assert answer.status_code == status


async def test_a_login_ends_in_the_end(it: Field, clock: FakeClock) -> None:
    """However busy: a copy of its cookie must not be kept awake for ever."""
    browser = await it.person("operator")
    for _ in range(int(LASTS_S / (IDLE_S * 0.9)) + 1):
        clock.advance(IDLE_S * 0.9)
        last = await browser.get("/fleet")
        if last.status_code != 200:
            break
    assert last.status_code == 303
    assert clock.wall_s() > LASTS_S


async def test_a_wrong_key_is_refused_and_guessing_is_slowed_down(it: Field) -> None:
    """As at every other door: counted by address, told to the audit log, and locked in the end."""
    browser = it.browser("192.0.2.9")
    refused = await browser.log_in("wrong")
    assert refused.status_code == 401
    assert "Nobody knows this key" in refused.text
    for number in range(19):
        await browser.log_in(f"guess-{number}")
    locked = await browser.log_in("guess-20")
    assert locked.status_code == 429
    assert "too many different credentials" in locked.text.lower()
    elsewhere = it.browser("192.0.2.10")
    assert (await elsewhere.log_in(OPERATOR)).status_code == 303
    rows = (await it.api("GET", "/v1/audit")).json()["items"]
    refusals = [row for row in rows if row["action"] == "authenticate" and row["decision"] == "refused"]
    assert refusals
    assert all(row["peer"] == "192.0.2.9" for row in refusals)


async def test_a_nodes_credential_is_no_persons(it: Field) -> None:
    """It is told why."""
    refused = await it.browser().log_in("the-join-token")
    assert refused.status_code == 403
    assert "not for the console" in refused.text


async def test_a_revoked_key_is_out_at_once(it: Field) -> None:
    """The session holds the credential, and nothing that would outlive it."""
    browser = await it.person("operator")
    assert (await browser.get("/fleet")).status_code == 200
    await it.api("DELETE", f"/v1/keys/{it.keys['default', 'operator']['id']}")
    out = await browser.get("/fleet")
    assert (out.status_code, out.headers["location"].partition("?")[0]) == (303, "/console/login")
    part = await browser.get("/fleet", **{"HX-Request": "true", "HX-Current-URL": f"{BASE}/console/fleet"})
    assert part.status_code in {303, 401}


async def test_a_part_that_is_fetched_again_sends_the_whole_page_to_the_login(it: Field) -> None:
    """A redirect would be followed by the script, and the login shown inside of the page."""
    browser = await it.person("operator")
    cookies = dict(browser.http.cookies)
    await it.api("DELETE", f"/v1/keys/{it.keys['default', 'operator']['id']}")
    browser.http.cookies.update(cookies)
    part = await browser.get("/fleet", **{"HX-Request": "true", "HX-Current-URL": f"{BASE}/console/fleet?a=b"})
    assert part.status_code == 401
    assert part.headers["hx-redirect"] == "/console/login?next=%2Fconsole%2Ffleet%3Fa%3Db"


async def test_a_stream_without_a_login_says_that_its_page_is_to_be_left(it: Field) -> None:
    """A key that is revoked before its page has begun to listen: a redirect would be tried again and again."""
    browser = await it.person("operator")
    cookies = dict(browser.http.cookies)
    await it.api("DELETE", f"/v1/keys/{it.keys['default', 'operator']['id']}")
    for carried in (cookies, {}):
        browser.http.cookies.clear()
        browser.http.cookies.update(carried)
        stream = await browser.get("/fleet/live", Accept="text/event-stream")
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.content == live.OUT


async def test_a_login_ends_when_nobody_does_anything(it: Field, clock: FakeClock) -> None:
    """What a person asks for keeps it awake, and what a page fetches by itself does not."""
    browser = await it.person("operator")
    clock.advance(IDLE_S * 0.7)
    assert (await browser.get("/fleet")).status_code == 200
    clock.advance(IDLE_S * 0.7)
    assert (await browser.get("/fleet", **{"HX-Request": "true"})).status_code == 200
    clock.advance(IDLE_S * 0.7)
    assert (await browser.get("/fleet")).status_code == 303


async def test_who_logged_out_is_out_with_every_copy_of_the_cookie(it: Field) -> None:
    """A cookie that somebody kept is good for nothing."""
    browser = await it.person("operator")
    await browser.get("/fleet")
    kept = dict(browser.http.cookies)
    assert (await browser.post("/logout")).status_code == 303
    browser.http.cookies.update(kept)
    assert (await browser.get("/fleet")).status_code == 303


async def test_who_logs_in_anew_ends_the_login_before(it: Field) -> None:
    """The browser has one cookie; a copy of the old one must not outlive it."""
    browser = await it.person("operator")
    kept = dict(browser.http.cookies)
    assert (await browser.log_in(OPERATOR)).status_code == 303
    thief = it.browser()
    thief.http.cookies.update(kept)
    assert (await thief.get("/fleet")).status_code == 303
    assert (await browser.get("/fleet")).status_code == 200


async def test_a_changed_cookie_opens_nothing(it: Field) -> None:
    """It is authenticated, and another fleet's is no good here."""
    browser = await it.person("operator")
    (name,) = list(browser.http.cookies)
    value = browser.http.cookies[name]
    for place in (0, len(value) // 2, len(value) - 3):
        other = "A" if value[place] != "A" else "B"
        browser.http.cookies.set(name, value[:place] + other + value[place + 1 :], "127.0.0.1", "/console")
        assert (await browser.get("/fleet")).status_code == 303, place
    for junk in ("", "x", "é", "A" * 5000):
        browser.http.cookies.clear()
        answer = await browser.http.get("/console/fleet", headers={"Cookie": f"{name}={junk}".encode()})
        assert answer.status_code == 303, junk


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:9999", "http://localhost:8700", "null", "http://["])
async def test_a_form_of_another_page_does_nothing(it: Field, origin: str | None) -> None:
    """Not even from another program on the same machine, whose pages the API itself would let ask."""
    browser = await it.person("operator")
    await browser.get("/fleet/a1/drain")
    refused = await browser.post("/fleet/a1/drain", origin=origin)
    assert refused.status_code == 403
    assert it.story.core.roster.find("a1") is not None
    nodes = (await it.api("GET", "/v1/nodes")).json()["items"]
    assert [node["state"] for node in nodes] == ["active"]
    stranger = it.browser()
    assert (await stranger.http.post("/console/login", data={"credential": OPERATOR})).status_code == 403


async def test_a_form_without_this_logins_token_does_nothing(it: Field) -> None:
    """Neither without one, nor with another login's."""
    browser, other = await it.person("operator"), await it.person("admin")
    await other.get("/fleet/a1/drain")
    for token in ("", "x", other.token):
        assert (await browser.post("/fleet/a1/drain", token=token)).status_code == 403
    nodes = (await it.api("GET", "/v1/nodes")).json()["items"]
    assert [node["state"] for node in nodes] == ["active"]


async def test_what_was_asked_for_is_done(it: Field) -> None:
    """Else the refusals above prove nothing; and the next page says what became of it, once."""
    browser = await it.person("operator")
    page = await browser.submit("/fleet/a1/drain")
    assert "a1 is draining" in page.text
    assert "a1 is draining" not in (await browser.get("/fleet")).text


async def test_a_link_of_another_site_finds_the_login(it: Field) -> None:
    """A strict cookie stays away from it; a page of ours asks again, and then it comes."""
    bounced = await it.browser().get("/fleet", **{"Sec-Fetch-Site": "cross-site"})
    assert bounced.status_code == 200
    assert 'http-equiv="refresh"' in bounced.text
    assert "a1" not in bounced.text


@pytest.mark.parametrize(
    "said",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/v1/keys",
        "javascript:alert(1)",
        "/console\\..",
        "",
    ],
)
async def test_a_login_leads_to_the_console_and_nowhere_else(it: Field, said: str) -> None:
    """An address that somebody else wrote is no way out of it."""
    browser = it.browser()
    answer = await browser.http.post(
        "/console/login", params={"next": said}, data={"credential": OPERATOR}, headers={"Origin": BASE}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")


async def test_a_browser_may_run_nothing_but_our_files(it: Field) -> None:
    """On every kind of answer; and no page has a script, a style or a handler inside."""
    browser = await it.person("admin")
    stranger = it.browser()
    for who, path in ((browser, "/fleet"), (browser, "/nowhere"), (stranger, "/login"), (stranger, "/static/app.css")):
        answer = await who.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "same-origin"
    page = (await browser.get("/fleet")).text
    assert " style=" not in page
    assert "<style" not in page
    assert "<script>" not in page
    assert " onclick=" not in page


async def test_an_open_stream_ends_with_its_key(it: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing of what happened, only that something did; and a stranger gets none."""
    monkeypatch.setattr(live, "TICK_EVERY_S", 0.001)
    monkeypatch.setattr(live, "ANYWAY_EVERY_S", 3600.0)
    browser = await it.person("operator")
    call = await it.call()
    streams = [asyncio.create_task(browser.get(path)) for path in ("/fleet/live", f"/calls/{call}/live")]
    await asyncio.wait(streams, timeout=0.05)
    await it.api("DELETE", f"/v1/keys/{it.keys['default', 'operator']['id']}")
    it.pulse.beat()
    await it.api("POST", f"/v1/invocations/{call}/cancel")
    async with asyncio.timeout(60.0):
        answers = await asyncio.gather(*streams)
    for answer in answers:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.endswith("event: out\ndata: 1\n\n")
        assert call not in answer.text
    assert (await it.browser().get("/fleet/live")).status_code == 303


@pytest.mark.parametrize("path", ["/fleet/a1/drain", "/queues/pool/east/pause"])
async def test_asking_for_the_head_of_a_question_does_nothing(it: Field, path: str) -> None:
    """HEAD comes along with GET, carries no form, and a page of a neighbouring port may send it with the cookie."""
    browser = await it.person("operator")
    answer = await browser.http.head(f"/console{path}")
    assert answer.status_code == 200
    nodes = (await it.api("GET", "/v1/nodes")).json()["items"]
    assert [node["state"] for node in nodes] == ["active"]
    pools = (await it.api("GET", "/v1/pools")).json()["items"]
    assert not any(pool["is_paused"] for pool in pools)

"""The console's parts by themselves: what was vendored, when a page is fetched again, what is said how."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator
from hashlib import sha256
from importlib.resources import files
from urllib.parse import unquote

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from orchestrator.api.leading import LeaderGuard
from orchestrator.console import live, streams, words
from orchestrator.console.forms import place_after
from orchestrator.console.inside import Refused
from orchestrator.console.live import OUT, RETRY, TICK, Pulse
from orchestrator.console.pages import PAGES
from orchestrator.console.render import STATIC, Renderer
from orchestrator.console.session import CREDENTIAL_CHARS_MAX, Sessions
from orchestrator.console.streams import Streams
from orchestrator.console.views import overview
from tasks.invocation import State
from tasks.node import NodeState
from tasks.testing.clock import FakeClock

WITHIN_S = 60.0
VENDORED = {
    "htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",  # htmx.org 2.0.11
    "idiomorph-ext.min.js": "5811b9a7eda14878b7dab4378bf60432e1bb6f11fcfb970cc26540642650181e",  # idiomorph 0.8.0
}


def test_what_is_not_ours_is_what_was_published() -> None:
    """A change to it is a change of its version, made here; and its licence is beside it."""
    folder = files("orchestrator.console") / "static" / "vendor"
    assert {name: sha256((folder / name).read_bytes()).hexdigest() for name in VENDORED} == VENDORED
    for name in ("htmx.LICENSE", "idiomorph.LICENSE"):
        assert "BSD" in (folder / name).read_text()
    assert {name.removeprefix("vendor/") for name in STATIC if "vendor" in name} == set(VENDORED)


def test_every_template_can_be_read() -> None:
    """A mistake in one is found at the start, not by who opens it."""
    renderer = Renderer("1")
    names = [name for name in renderer._env.list_templates() if name.endswith(".html")]
    assert len(names) > 8
    for name in names:
        renderer._env.get_template(name)


def test_every_state_has_a_tone_and_every_tone_a_sign() -> None:
    """Colour never says alone what a word and a sign do not."""
    assert set(words.TONES) >= set(State) | {NodeState.ACTIVE, NodeState.CORDONED, NodeState.DRAINING}
    assert len(set(words.SIGNS.values())) == len(words.SIGNS) == len({*words.TONES.values()} | set(words.SIGNS))


def test_the_longest_credential_fits_a_cookie() -> None:
    """Else a browser would drop it, and its person would wonder. Source: RFC 6265, section 6.1."""
    sessions = Sessions(b"secret", idle_s=60.0, clock=FakeClock())
    name, value = sessions.cookie(is_tls=True), sessions.sealed(sessions.begin("x" * CREDENTIAL_CHARS_MAX))
    assert len(f"{name}={value}; HttpOnly; Path=/console; SameSite=strict; Secure") < 4096


def test_two_fleets_on_one_host_have_two_cookies() -> None:
    """Cookies know no ports: the second would log the first one's people out."""
    one, two = (Sessions(secret, idle_s=60.0, clock=FakeClock()) for secret in (b"a", b"b"))
    assert one.cookie(is_tls=False) != two.cookie(is_tls=False)


@pytest.mark.parametrize(
    "said",
    ["http://[", "/console/../v1", "/console/fleet\r\nSet-Cookie: a=b", "/consolex", "\\console", "/console/%2e%2e/v1"],
)
def test_an_address_of_others_leads_nowhere_else(said: str) -> None:
    """Whatever it is made of, the answer is a path of ours."""
    assert place_after(said).startswith("/console")
    assert ".." not in unquote(place_after(said))
    assert not set(place_after(said)) & {"\r", "\n", "\\"}


# ---------------------------------------------------------------- when a page is fetched again


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TICK_EVERY_S", 0.001)
    monkeypatch.setattr(live, "ANYWAY_EVERY_S", 3600.0)


async def good() -> bool:
    """Nobody was logged out."""
    return True


async def test_something_that_happened_is_one_tick_however_much_it_was() -> None:
    """A thousand calls a second are one page a second."""
    pulse = Pulse()
    stream = pulse.stream(good)
    async with asyncio.timeout(WITHIN_S):
        assert [await anext(stream), await anext(stream)] == [RETRY, TICK]
        waiting = asyncio.ensure_future(anext(stream))
        for _ in range(1000):
            pulse.beat()
        assert await waiting == TICK
        still = asyncio.ensure_future(anext(stream))
        done, _ = await asyncio.wait({still}, timeout=0.05)
        assert not done
        still.cancel()
        await asyncio.gather(still, return_exceptions=True)
        await stream.aclose()
    assert not pulse._waiting


async def test_a_login_that_is_over_ends_its_stream() -> None:
    """And says so, that the page can go to the login."""
    answers = iter([True, False])

    async def is_good() -> bool:
        return next(answers)

    pulse = Pulse()
    stream = pulse.stream(is_good)
    async with asyncio.timeout(WITHIN_S):
        assert [await anext(stream), await anext(stream)] == [RETRY, TICK]
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.wait({waiting}, timeout=0.01)
        pulse.beat()
        assert await waiting == OUT
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_an_orchestrator_that_ends_ends_its_streams() -> None:
    """Without a word, so that browsers come back to the next one."""
    pulse = Pulse()
    stream = pulse.stream(good)
    async with asyncio.timeout(WITHIN_S):
        await anext(stream)
        await anext(stream)
        pulse.end()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_calls_progress_is_passed_on_and_silence_is_not() -> None:
    """Of several words the latest; a keepalive is no news."""

    async def news() -> AsyncIterator[bytes]:
        yield b": keepalive\n\n"
        yield b"event: progress\ndata: 1\n\n"
        yield b"event: progress\ndata: 2\n\n"

    stream = Pulse().stream(good, news())
    async with asyncio.timeout(WITHIN_S):
        said = [await anext(stream) for _ in range(4)]
        await stream.aclose()
    assert said[-1] == b"event: progress\ndata: 2\n\n"
    assert b"event: progress\ndata: 1\n\n" not in said


async def test_many_open_pages_share_one_pace() -> None:
    """A hundred open pages are fetched as often together as ten: the rest of the loop is for the fleet."""
    pulse = Pulse()
    opened = [pulse.stream(good) for _ in range(live.PAGES_A_SECOND * 10)]
    assert pulse.pace_s() == live.TICK_EVERY_S
    for stream in opened:
        await anext(stream)
    assert pulse.pace_s() == pytest.approx(live.TICK_EVERY_S * 10)
    for stream in opened:
        await stream.aclose()
    assert pulse.pace_s() == live.TICK_EVERY_S


# ---------------------------------------------------------------- how many streams


async def nobody_leaves() -> Message:
    """A reader that stays."""
    await asyncio.Event().wait()
    raise AssertionError


async def for_ever() -> AsyncGenerator[bytes, None]:
    """A stream that has always something to say."""
    while True:
        yield TICK


async def test_one_person_has_so_many_streams_and_all_together_so_many() -> None:
    """Past it a sentence, and room again when one is closed: counted when it ends, however it does."""
    counted = Streams({}, each=2, at_once=3)
    stuck = asyncio.Event()

    async def send(_message: Message) -> None:
        await stuck.wait()

    async def opened(whose: str) -> asyncio.Task[None]:
        counted.admit(whose)
        task = asyncio.create_task(counted.answer(whose, for_ever())({"type": "http"}, nobody_leaves, send))
        await asyncio.wait({task}, timeout=0.01)
        return task

    tasks = [await opened("default/ann"), await opened("default/ann")]
    with pytest.raises(Refused) as refused:
        counted.admit("default/ann")
    assert refused.value.status == 429
    tasks.append(await opened("default/bob"))
    with pytest.raises(Refused) as refused:
        counted.admit("default/cid")
    assert refused.value.status == 503
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    counted.admit("default/ann")


async def test_a_reader_that_takes_nothing_loses_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would keep a place, and what was read for it, for as long as it likes."""
    monkeypatch.setattr(streams, "TAKEN_WITHIN_S", 0.01)
    counted, sent = Streams({}, each=1), 0

    async def send(_message: Message) -> None:
        nonlocal sent
        sent += 1
        if sent > 3:
            await asyncio.Event().wait()

    async with asyncio.timeout(WITHIN_S):
        await counted.answer("default/ann", for_ever())({"type": "http"}, nobody_leaves, send)
    counted.admit("default/ann")


@pytest.mark.parametrize("at", [1e300, 1e12, -1e12, 0.0])
def test_a_time_that_no_calendar_has_is_no_error(at: float) -> None:
    """Callers choose deadlines."""
    assert words.utc(at).endswith("UTC")
    assert words.clock(at)
    assert words.iso(at)


async def test_a_page_that_finds_nobody_leading_asks_again_by_itself() -> None:
    """A replica that was superseded answers for a moment; a person in a browser must not be left with that."""
    guard = LeaderGuard(_unreached, leads=lambda: False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://127.0.0.1") as http:
        answer = await http.get("/console/calls")
    assert (answer.status_code, answer.headers["refresh"], answer.headers["retry-after"]) == (503, "2", "1")


async def _unreached(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise AssertionError


def test_what_needs_somebody_leads_to_pages_that_are_there() -> None:
    """A sentence of the first page without its page is text alone, and nobody notices."""
    named = set(re.findall(r'"(/[a-z-]+)(?:\?[^"]*)?"\n? *\)', inspect.getsource(overview)))
    assert {"/fleet", "/queues", "/autoscaler"} <= named
    assert named <= {page.path for page in PAGES}

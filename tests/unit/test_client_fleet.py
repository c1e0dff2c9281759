"""The Python client, over a fake fleet on a real socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import httpx
import pytest

from orchestrator.testing.doors import CLIENT_TOKEN
from orchestrator.testing.http import served
from tasks.client import AsyncFleet, AsyncHandle, ClientSettings, Fleet, Handle, ToolResult
from tasks.client.exchange import Core
from tasks.errors import (
    FleetError,
    InvalidArguments,
    InvocationFailed,
    LedgerDown,
    NotAllowed,
    NotFound,
    OrchestratorDown,
    UnknownTool,
)
from tasks.invocation import State
from tasks.retry import RetryPolicy

WITHIN_S = 20.0
SETTINGS = ClientSettings("http://fleet.test", "t")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a fake fleet."""
    with served() as url:
        yield url


@pytest.fixture
def fleet(url: str) -> Iterator[Fleet]:
    """The blocking client."""
    with Fleet(url, CLIENT_TOKEN) as fleet:
        yield fleet


def test_a_result_is_read_as_the_tool_sent_it(fleet: Fleet) -> None:
    """Text, structured content, the raw result and what the fleet knows of the call."""
    result = fleet.call("probe.stats", {"text": "abc"}, project="shop", wait_s=WITHIN_S)
    assert (result.text, result.structured, result.is_error) == ("abc", {"text": "abc", "length": 3}, False)
    assert result.value == result.structured
    assert result.raw["content"] == result.content
    assert result.invocation.project == "shop"
    assert fleet.call("probe.echo", {"text": "abc"}, wait_s=WITHIN_S).value == "abc"


def test_bad_ends_raise_or_are_kept(fleet: Fleet) -> None:
    """A tool that says isError raises, with its words; `check=False` gives its answer."""
    with pytest.raises(InvocationFailed, match="out of milk") as caught:
        fleet.call("probe.fail", {"text": "out of milk"}, wait_s=WITHIN_S)
    assert (caught.value.ending, caught.value.error_code, caught.value.detail) == (
        "failed",
        "tool_error",
        "out of milk",
    )
    kept = fleet.call("probe.fail", {"text": "out of milk"}, wait_s=WITHIN_S, check=False)
    assert (kept.is_error, kept.text) == (True, "out of milk")


def test_errors_arrive_as_what_they_are(fleet: Fleet, url: str) -> None:
    """Class, message and fields survive the wire; the trace id is noted."""
    with pytest.raises(UnknownTool, match=r"did you mean 'probe\.echo'") as unknown:
        fleet.submit("probe.ecko")
    assert unknown.value.tool == "probe.ecko"
    assert "trace_id" in unknown.value.__notes__[0]
    with pytest.raises(InvalidArguments) as invalid:
        fleet.submit("probe.echo", {"txt": "x"})
    assert (invalid.value.tool, "txt" in invalid.value.detail) == ("probe.echo", True)
    with pytest.raises(NotFound):
        fleet.handle("nobody").state()
    with pytest.raises(NotAllowed):
        Fleet(url, "wrong").tools()


def test_a_handle_follows_its_call(fleet: Fleet) -> None:
    """Progress as it comes, then the result, the reasons and the state; another handle finds it by id."""
    handle = fleet.submit("probe.sleep", {"seconds": 0.2, "steps": 2})
    assert [(one.progress, one.total, one.message) for one in handle.progress()] == [(1, 2, "step 1"), (2, 2, "step 2")]
    assert fleet.handle(handle.id).result(WITHIN_S).text == "slept"
    assert handle.state() is State.SUCCEEDED
    assert handle.explain().reasons == ["the only node"]
    kinds = [event.kind for event in handle.events()]
    assert (kinds[0], kinds[-1]) == ("accepted", "ended")


def test_waiting_ends_when_the_callers_time_does(fleet: Fleet) -> None:
    """A TimeoutError says that the call goes on, and it does."""
    handle = fleet.submit("probe.sleep", {"seconds": 60})
    for wait in (lambda: handle.result(0.05), lambda: fleet.gather(handle, timeout_s=0.05)):
        with pytest.raises(TimeoutError, match="on"):
            wait()
    with pytest.raises(TimeoutError):
        fleet.call("probe.sleep", {"seconds": 60}, wait_s=0.05)
    assert handle.cancel().state is State.CANCELLED


def test_map_and_gather_keep_the_order(fleet: Fleet) -> None:
    """Results come in the order asked for, whatever order they end in."""
    arguments = [{"seconds": 0.1 - n / 100} for n in range(10)]
    assert len(fleet.map("probe.sleep", arguments, wait_s=WITHIN_S)) == 10
    texts = [result.text for result in fleet.map("probe.echo", ({"text": str(n)} for n in range(1500)))]
    assert texts == [str(n) for n in range(1500)]
    handles = [fleet.submit("probe.echo", {"text": "a"}), fleet.submit("probe.fail"), fleet.submit("probe.echo")]
    found = fleet.gather(*handles, return_exceptions=True, timeout_s=WITHIN_S)
    assert [isinstance(one, ToolResult) for one in found] == [True, False, True]
    with pytest.raises(InvocationFailed):
        fleet.gather(*handles, timeout_s=WITHIN_S)


def test_one_bad_item_fails_the_map_at_once(fleet: Fleet) -> None:
    """Nobody waits a minute to hear of a failure that is there already."""
    slow = fleet.submit("probe.sleep", {"seconds": 60})
    with pytest.raises(InvocationFailed):
        fleet.gather(slow, fleet.submit("probe.fail"))
    slow.cancel()


async def test_the_awaiting_client_is_the_same_client(url: str) -> None:
    """Every operation of the one exists in the other and does the same."""
    assert {name for name in vars(Fleet) if name[0] != "_"} == {name for name in vars(AsyncFleet) if name[0] != "_"}
    assert {name for name in vars(Handle) if name[0] != "_"} == {name for name in vars(AsyncHandle) if name[0] != "_"}
    async with AsyncFleet(url, CLIENT_TOKEN) as fleet, asyncio.timeout(WITHIN_S):
        assert (await fleet.call("probe.echo", {"text": "abc"})).text == "abc"
        handle = await fleet.submit("probe.sleep", {"seconds": 0.1, "steps": 2})
        assert [one.progress async for one in handle.progress()] == [1, 2]
        assert len(await fleet.map("probe.echo", [{}, {}])) == 2
        [first, second] = await fleet.gather(handle, await fleet.submit("probe.fail"), return_exceptions=True)
        assert isinstance(first, ToolResult)
        assert isinstance(second, FleetError)


def scripted(*answers: httpx.Response | Exception) -> tuple[Fleet, list[httpx.Request]]:
    """A client whose orchestrator answers so, and what it was sent. It waits for nothing."""
    seen: list[httpx.Request] = []
    script = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        found = next(script)
        if isinstance(found, Exception):
            raise found
        return found

    core = Core(SETTINGS.url, draw=lambda: 0.0, patience=RetryPolicy(attempts=3, first_wait_s=0.0, cap_s=0.0))
    return Fleet(settings=SETTINGS, core=core, transport=httpx.MockTransport(answer)), seen


def accepted() -> httpx.Response:
    """202."""
    form = {
        "id": "i", "tool": "a.b", "project": None, "state": "waiting", "lane": "tools", "priority": 5, "tenant": "t",
        "principal": "p", "accepted_at": 1, "ended_at": None, "expires_at": None, "not_before": None, "fence": 0,
        "tries": 0, "node": None, "trace_id": None,
    }  # fmt: skip
    return httpx.Response(202, json=form)


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: httpx.ConnectError("refused"),
        lambda: httpx.ReadError("reset"),
        lambda: httpx.Response(502, text="<html>bad gateway</html>"),
        lambda: httpx.Response(503, headers={"Retry-After": "1"}, json={"detail": "busy", "code": "ledger_down"}),
    ],
)
def test_a_post_is_repeated_under_the_same_key(trouble: Callable[[], httpx.Response | Exception]) -> None:
    """A connection that broke after acceptance must not make a second call."""
    fleet, seen = scripted(trouble(), accepted())
    assert fleet.submit("a.b", {"x": 1}).id == "i"
    assert seen[0].content == seen[1].content
    assert b'"idempotency_key":"' in seen[0].content


def test_patience_ends(url: str) -> None:
    """Nobody there at all, or a ledger that stays down: the error says which."""
    fleet, seen = scripted(*[httpx.ConnectError("refused")] * 3)
    with pytest.raises(OrchestratorDown, match="refused"):
        fleet.submit("a.b")
    assert len(seen) == 3
    down = {"detail": "no database", "code": "ledger_down"}
    fleet, _ = scripted(*[httpx.Response(503, json=down) for _ in range(3)])
    with pytest.raises(LedgerDown, match="no database"):
        fleet.submit("a.b")


def test_what_cannot_get_better_is_not_repeated() -> None:
    """A refused call is refused once."""
    fleet, seen = scripted(httpx.Response(422, json={"detail": "no", "code": "invalid_project"}))
    with pytest.raises(FleetError, match="no"):
        fleet.submit("a.b")
    assert len(seen) == 1


def test_an_event_stream_is_taken_up_again_where_it_broke() -> None:
    """The second connection says what was seen last; the end is reached once."""
    first = 'id: 1.1\nevent: released\ndata: {"kind": "released", "at": 1}\n\nid: 1.2\ndata: {"ki'
    second = 'event: ended\ndata: {"kind": "ended", "at": 2}\n\n'
    fleet, seen = scripted(httpx.Response(200, text=first), httpx.ReadError("reset"), httpx.Response(200, text=second))
    assert [event.kind for event in fleet.handle("i").events()] == ["released", "ended"]
    assert seen[2].headers["last-event-id"] == "1.2"


def test_a_forked_child_has_connections_of_its_own(fleet: Fleet) -> None:
    """Celery's workers fork: two processes that share a socket would read each other's answers."""
    assert fleet.call("probe.echo", {"text": "parent"}).text == "parent"
    child = os.fork()
    if child == 0:
        os._exit(0 if fleet.call("probe.echo", {"text": "child"}).text == "child" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert fleet.call("probe.echo", {"text": "parent"}).text == "parent"

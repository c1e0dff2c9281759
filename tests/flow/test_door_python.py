"""The Python door: `Fleet` and `AsyncFleet` against a real fleet and servers we did not write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.client import AsyncFleet, Fleet
from tasks.errors import FleetError, InvalidArguments, InvocationFailed, UnknownTool
from tasks.invocation import State

WITHIN_S = 40.0
UTC = {"timezone": "UTC"}


@pytest.fixture
def client(fleet_url: str, token: str) -> Iterator[Fleet]:
    """The blocking client."""
    with Fleet(fleet_url, token) as client:
        yield client


def test_a_call_gives_the_tools_own_answer(client: Fleet) -> None:
    """Structured content and text of a server we did not write arrive as they were sent."""
    result = client.call("time.get_current_time", UTC, project="python-door", wait_s=WITHIN_S)
    assert result.structured is not None
    assert result.structured["timezone"] == "UTC"
    assert '"timezone": "UTC"' in result.text
    assert result.is_error is False


def test_a_handle_tells_progress_reasons_and_state(client: Fleet) -> None:
    """While it runs, a handle shows what the tool reports, where it runs and why."""
    handle = client.submit("probe.sleep", {"seconds": 1.0, "steps": 4})
    reported = [one.progress for one in handle.progress()]
    assert reported == sorted(reported)
    assert reported
    assert handle.result(WITHIN_S).is_error is False
    assert handle.state() is State.SUCCEEDED
    assert handle.explain().reasons


def test_a_hundred_calls_come_back_in_order(client: Fleet) -> None:
    """`map` keeps the order of its arguments, whatever order they end in."""
    results = client.map("probe.echo", [{"n": n} for n in range(100)], wait_s=WITHIN_S)
    assert [str(n) in result.text for n, result in enumerate(results)] == [True] * 100


def test_what_ends_badly_raises_and_can_be_kept(client: Fleet) -> None:
    """A tool that says isError raises; `check=False` and `return_exceptions` keep the rest."""
    with pytest.raises(InvocationFailed) as caught:
        client.call("probe.fail", {}, wait_s=WITHIN_S)
    assert caught.value.error_code
    kept = client.call("probe.fail", {}, wait_s=WITHIN_S, check=False)
    assert kept.is_error
    good, bad = client.submit("probe.echo", {"n": 1}), client.submit("probe.fail", {})
    first, second = client.gather(good, bad, return_exceptions=True, timeout_s=WITHIN_S)
    assert not isinstance(first, FleetError)
    assert isinstance(second, InvocationFailed)


def test_a_running_call_can_be_cancelled(client: Fleet) -> None:
    """Cancelling reaches the tool: it ends long before it would have."""
    handle = client.submit("probe.sleep", {"seconds": 300})
    next(event for event in handle.events() if event.kind == "running")
    handle.cancel()
    with pytest.raises(InvocationFailed) as caught:
        handle.result(WITHIN_S)
    assert caught.value.ending == "cancelled"


def test_bad_input_raises_the_error_it_is(client: Fleet) -> None:
    """The fleet's errors arrive as their own classes, with their fields."""
    with pytest.raises(UnknownTool, match=r"time\.get_current_time"):
        client.call("time.get_curent_time", UTC)
    with pytest.raises(InvalidArguments) as caught:
        client.call("time.get_current_time", {"timezone": 7})
    assert "timezone" in caught.value.path


def test_a_key_sent_twice_is_one_call(client: Fleet) -> None:
    """The same idempotency key gives the same Invocation."""
    first = client.submit("probe.echo", {"n": 1}, idempotency_key="python-door-once")
    assert client.submit("probe.echo", {"n": 1}, idempotency_key="python-door-once").id == first.id


async def test_the_awaiting_client_does_the_same(fleet_url: str, token: str) -> None:
    """One implementation: calls, handles, progress and map work under await."""
    async with AsyncFleet(fleet_url, token) as client:
        result = await client.call("time.get_current_time", UTC, wait_s=WITHIN_S)
        assert result.structured is not None
        handle = await client.submit("probe.sleep", {"seconds": 0.5, "steps": 2})
        assert [one async for one in handle.progress()]
        assert (await handle.result(WITHIN_S)).is_error is False
        results = await client.map("probe.echo", [{"n": n} for n in range(20)], wait_s=WITHIN_S)
        assert len(results) == 20

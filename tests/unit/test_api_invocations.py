"""The HTTP door's operations on Invocations, over a fake fleet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest

from orchestrator.api import reply
from orchestrator.api.reply import Stream
from orchestrator.api.settings import ApiSettings
from orchestrator.api.stream import KEEPALIVE, event_stream
from orchestrator.testing.doors import OTHER_TOKEN
from orchestrator.testing.fleet import FakeFleet
from orchestrator.testing.http import door
from tasks.invocation import Call, Principal
from tasks.wire import EventView, InvocationView, Page, WaitView

ALICE = Principal("alice", roles=frozenset({"developer"}))
ECHO: dict[str, Any] = {"tool": "probe.echo", "arguments": {"text": "hello"}}
SLEEP: dict[str, Any] = {"tool": "probe.sleep", "arguments": {"seconds": 60}}
WITHIN_S = 10


def view(answer: httpx.Response, status: int = 200) -> InvocationView:
    """The Invocation in an answer, which must be of the documented form."""
    assert answer.status_code == status, answer.text
    return InvocationView.model_validate_json(answer.content, strict=True)


async def test_accepted_with_a_location_or_answered_when_asked_to_wait() -> None:
    """Without `wait` 202 at once; with it 200 and the result; 202 again where the time is over."""
    async with door() as client:
        answer = await client.post("/v1/invocations", json=ECHO)
        assert answer.headers["location"] == f"/v1/invocations/{view(answer, 202).id}"
        ended = view(await client.post("/v1/invocations?wait=10", json=ECHO))
        assert ended.result == {"content": [{"type": "text", "text": "hello"}], "isError": False}
        assert view(await client.post("/v1/invocations?wait=0.01", json=SLEEP), 202).ended_at is None


async def test_everything_in_a_request_reaches_the_fleet() -> None:
    """Durations become times, a chain keeps its order, the trace id comes from traceparent."""
    body = {
        **ECHO, "project": "shop", "requires": ["probe"], "priority": 9, "delay_s": 100, "deadline_s": 200,
        "timeout_s": 5, "retry": {"attempts": 2}, "id": "chosen-by-caller",
        "then": [{"tool": "probe.stats", "into": "text"}, {"tool": "probe.echo", "expires_at": 9e9}],
    }  # fmt: skip
    fleet = FakeFleet()
    async with door(fleet) as client:
        headers = {"traceparent": f"00-{'ab' * 16}-{'1' * 16}-01"}
        accepted = view(await client.post("/v1/invocations", json=body, headers=headers), 202)
        call = (await fleet.get("chosen-by-caller", ALICE)).call
    assert (accepted.priority, accepted.project, accepted.trace_id) == (9, "shop", "ab" * 16)
    assert call.not_before is not None
    assert call.expires_at is not None
    assert call.expires_at - call.not_before == pytest.approx(100)
    assert [(step.tool, step.into) for step in call.then] == [("probe.stats", "text"), ("probe.echo", None)]
    assert call.then[1].expires_at == 9e9
    assert call.retry is not None
    assert call.retry.attempts == 2


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"delay_s": 1, "not_before": 1}, "delay_s"),
        ({"deadline_s": 1, "expires_at": 1}, "deadline_s"),
        ({"then": [{"tool": "a.b", "delay_s": 1, "not_before": 1}]}, "then.0.delay_s"),
        ({"then": [{"tool": "a.b", "then": []}]}, "then.0.then"),
        ({"into": "text"}, "into"),
        ({"priority": 10}, "priority"),
        ({"timeout_s": "5"}, "timeout_s"),
        ({"arguments": []}, "arguments"),
        ({"idempotency_key": "other"}, "idempotency_key"),
    ],
)
async def test_what_contradicts_itself_is_refused(change: dict[str, object], path: str) -> None:
    """Each with the path of the member that is wrong."""
    async with door() as client:
        answer = await client.post("/v1/invocations", json={**ECHO, **change}, headers={"Idempotency-Key": "one"})
    assert answer.status_code == 422
    assert path in [place["path"] for place in answer.json()["errors"]]


async def test_a_key_is_accepted_once_in_singles_and_batches() -> None:
    """A repeated request, one or a batch, gives the Invocations of the first."""
    async with door() as client:
        headers = {"Idempotency-Key": "once"}
        ids = {view(await client.post("/v1/invocations", json=ECHO, headers=headers), 202).id for _ in range(2)}
        assert len(ids) == 1
        batches = [
            (await client.post("/v1/invocations:batch", json={"calls": [ECHO, ECHO]}, headers=headers)).json()["items"]
            for _ in range(2)
        ]
        assert [one["id"] for one in batches[0]] == [one["id"] for one in batches[1]]
        assert len({one["id"] for one in batches[0]}) == 2
        other = await client.post("/v1/invocations", json=SLEEP, headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_a_batch_with_one_bad_call_accepts_none() -> None:
    """All or none."""
    async with door() as client:
        answer = await client.post("/v1/invocations:batch", json={"calls": [ECHO, {"tool": "probe.nothing"}]})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_tool")
        assert (await client.get("/v1/invocations")).json()["items"] == []


async def test_pages_lead_to_the_end() -> None:
    """Every Invocation once, newest first, filtered by what was asked."""
    fleet = FakeFleet()
    async with door(fleet) as client:
        made = [(await fleet.accept([Call("probe.echo", project="shop")], ALICE))[0].id for _ in range(5)]
        await fleet.accept([Call("probe.echo", project="other")], ALICE)
        await asyncio.gather(*(fleet.wait(one, ALICE, WITHIN_S) for one in made))
        seen: list[str] = []
        cursor: dict[str, str] = {}
        query: dict[str, Any] = {"project": "shop", "limit": 2, "state": ["succeeded", "failed"]}
        while True:
            page = Page[InvocationView].model_validate_json(
                (await client.get("/v1/invocations", params=query | cursor)).content
            )
            seen += [one.id for one in page.items]
            if page.next is None:
                break
            cursor = {"cursor": page.next}
    assert seen == made[::-1]


async def test_cancel_and_replay() -> None:
    """Cancelled is ended; a replay is a new Invocation that names the old one."""
    async with door() as client:
        one = view(await client.post("/v1/invocations", json=SLEEP), 202)
        early = await client.post(f"/v1/invocations/{one.id}/replay")
        assert (early.status_code, early.json()["code"]) == (409, "wrong_state")
        assert view(await client.post(f"/v1/invocations/{one.id}/cancel")).state == "cancelled"
        assert view(await client.post(f"/v1/invocations/{one.id}/cancel")).state == "cancelled"
        assert view(await client.post(f"/v1/invocations/{one.id}/replay"), 202).replay_of == one.id


async def wait(client: httpx.AsyncClient, **body: Any) -> WaitView:
    """POST /v1/invocations:wait."""
    answer = await client.post("/v1/invocations:wait", json=body)
    assert answer.status_code == 200, answer.text
    return WaitView.model_validate_json(answer.content)


async def test_one_request_waits_for_many() -> None:
    """Each id is in exactly one of ended, pending and unknown; another tenant's is unknown."""
    fleet = FakeFleet()
    async with door(fleet) as client, door(fleet, token=OTHER_TOKEN) as stranger:
        ids = [one.id for one in await fleet.accept([Call("probe.echo")] * 3, ALICE)]
        [slow] = await fleet.accept([Call("probe.sleep", '{"seconds": 60}')], ALICE)
        found = await wait(client, ids=[*ids, slow.id, "nobody", ids[0]], timeout_s=0.2)
        assert sorted(one.id for one in found.ended) == sorted(ids)
        assert (found.pending, found.unknown, found.more) == ([slow.id], ["nobody"], [])
        assert (await wait(stranger, ids=ids)).unknown == ids


@pytest.mark.parametrize(("until", "first"), [("any", "probe.echo"), ("first_failure", "probe.fail")])
async def test_a_wait_is_over_when_it_says(until: str, first: str) -> None:
    """`any` returns with the first end, `first_failure` with the first bad one, long before the time is over."""
    fleet = FakeFleet()
    async with door(fleet) as client, asyncio.timeout(WITHIN_S):
        [quick] = await fleet.accept([Call(first)], ALICE)
        [slow] = await fleet.accept([Call("probe.sleep", '{"seconds": 60}')], ALICE)
        found = await wait(client, ids=[slow.id, quick.id], timeout_s=50, until=until)
    assert ([one.id for one in found.ended], found.pending) == ([quick.id], [slow.id])


async def test_a_wait_with_large_results_says_what_is_left() -> None:
    """An answer has a limit; what did not fit is named, and can be asked for again."""
    fleet = FakeFleet()
    async with door(fleet, settings=ApiSettings(answer_limit_bytes=1)) as client:
        ids = [one.id for one in await fleet.accept([Call("probe.echo")] * 2, ALICE)]
        first = await wait(client, ids=ids, timeout_s=WITHIN_S)
        assert (len(first.ended), len(first.more)) == (1, 1)
        assert (await wait(client, ids=first.more)).ended[0].id == first.more[0]


async def test_a_wait_reports_a_ledger_that_is_down() -> None:
    """An error that is not about one id is no silence."""

    class Down(FakeFleet):
        async def wait(self, *_args: object) -> Any:
            raise RuntimeError

    async with door(Down()) as client, asyncio.timeout(WITHIN_S):
        answer = await client.post("/v1/invocations:wait", json={"ids": ["some-id-1"], "timeout_s": 50})
    assert answer.status_code == 500


def events(text: str) -> list[tuple[str, str]]:
    """Id and kind of each event in a stream's text."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            EventView.model_validate_json(fields["data"])
            found.append((fields.get("id", ""), fields["event"]))
    return found


async def test_a_stream_that_broke_goes_on_where_it_was() -> None:
    """Ids are the same on every reading, so nothing the ledger keeps is missed or told twice."""
    async with door() as client:
        body = {"tool": "probe.flaky", "arguments": {"key": "k"}}
        path = f"/v1/invocations/{view(await client.post('/v1/invocations', json=body), 202).id}/events"
        whole = events((await client.get(path)).text)
        assert [kind for _, kind in whole] == [
            "accepted",
            "released",
            "running",
            "retry",
            "released",
            "running",
            "ended",
        ]
        for position, (seen, _) in enumerate(whole[:-1]):
            rest = events((await client.get(path, headers={"Last-Event-ID": seen})).text)
            assert rest == whole[position + 1 :]


async def test_silence_is_filled_and_the_source_closed() -> None:
    """A proxy sees life on a quiet stream; a caller that leaves ends the reading behind it."""
    is_closed = asyncio.Event()

    async def quiet() -> AsyncIterator[EventView]:
        try:
            yield EventView(kind="accepted", at=1.0)
            await asyncio.Event().wait()
        finally:
            is_closed.set()

    stream = event_stream(quiet(), last_seen=None, keepalive_s=0.01)
    chunks = [await anext(stream) for _ in range(4)]
    assert [chunk == KEEPALIVE for chunk in chunks] == [True, False, True, True]
    await stream.aclose()
    assert is_closed.is_set()


async def test_a_caller_that_leaves_ends_the_stream() -> None:
    """Nothing goes on being read for somebody who is gone, wherever the writing stands."""
    is_closed, is_written = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"."
        finally:
            is_closed.set()

    async def receive() -> dict[str, Any]:
        await is_written.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            is_written.set()
            await asyncio.Event().wait()  # a socket whose other end reads no more

    async with asyncio.timeout(WITHIN_S):
        await Stream(endless(), b"text/plain").send(receive, send)
    assert is_closed.is_set()


async def test_a_caller_that_takes_nothing_loses_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and reads no more: what is read for it would be held for as long as it likes."""
    monkeypatch.setattr(reply, "TAKEN_WITHIN_S", 0.01)
    is_closed = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"."
        finally:
            is_closed.set()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async with asyncio.timeout(WITHIN_S * 6):
        await Stream(endless(), b"text/plain").send(receive, send)
    assert is_closed.is_set()


async def test_arguments_are_read_by_who_may_read_the_result() -> None:
    """As they were sent; another tenant finds nothing there, and what is longer than wanted is left out."""
    async with door() as client:
        made = (await client.post("/v1/invocations", json=ECHO)).json()["id"]
        whole = (await client.get(f"/v1/invocations/{made}/arguments")).json()
        cut = (await client.get(f"/v1/invocations/{made}/arguments?max_bytes=3")).json()
        assert (await client.get("/v1/invocations/nobody/arguments")).status_code == 404
    assert (whole["id"], whole["arguments"]) == (made, {"text": "hello"})
    assert (cut["arguments"], cut["size_bytes"]) == (None, whole["size_bytes"])
    fleet = FakeFleet()
    async with door(fleet=fleet) as client:
        made = (await client.post("/v1/invocations", json=ECHO)).json()["id"]
    async with door(token=OTHER_TOKEN, fleet=fleet) as client:
        assert (await client.get(f"/v1/invocations/{made}/arguments")).status_code == 404

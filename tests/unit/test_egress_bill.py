"""The way out of a sandbox puts on the bill what passes through it: by the time that who asked can know the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import orjson

from worker.sidecars.bill import Bill
from worker.sidecars.egress import Egress, Endpoint
from worker.sidecars.sidecar import Usage
from worker.sidecars.spend import Price, Prices

START = {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 100, "output_tokens": 1}}}
END = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 90}}
STOP = {"type": "message_stop"}
PRICES = Prices({"claude": Price(1_000_000.0, 2_000_000.0)})


def line(event: dict[str, object]) -> bytes:
    """As it is streamed."""
    return b"data: " + orjson.dumps(event) + b"\n\n"


class Provider(httpx.AsyncBaseTransport):
    """Streams what the test puts there; waits for more until it is told that nothing comes."""

    def __init__(self, status: int = 200) -> None:
        self.status, self.parts = status, asyncio.Queue[bytes | None]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One answer."""
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(self.status, headers=headers, stream=_Parts(self.parts), request=request)


class _Parts(httpx.AsyncByteStream):
    def __init__(self, parts: asyncio.Queue[bytes | None]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (part := await self._parts.get()) is not None:
            yield part


class Asking:
    """One request of a run, as an ASGI call: what came of it until now."""

    def __init__(self, egress: Egress, token: str, path: str = "/v1/messages") -> None:
        self.came: asyncio.Queue[bytes] = asyncio.Queue()
        self.task = asyncio.create_task(self._ask(egress, token, path))

    async def _ask(self, egress: Egress, token: str, path: str) -> None:
        body = orjson.dumps({"model": "claude-asked"})
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"x-api-key", token.encode())], "http_version": "1.1", "scheme": "http", "server": None,
        }  # fmt: skip
        told = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, object]:
            if told:
                return told.pop(0)
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.body" and message.get("body"):
                self.came.put_nowait(message["body"])  # type: ignore[arg-type]

        await egress.app(scope, receive, send)  # type: ignore[arg-type]

    async def end(self) -> None:
        """Whoever asked hangs up."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def egress_of(provider: Provider) -> Egress:
    """One that nobody needs to serve."""
    return Egress(Endpoint("http://model.test", dict), PRICES, transport=provider)


async def test_the_bill_is_made_before_the_end_is_passed_on() -> None:
    """The runtime says its Result as soon as it has read the end: the request is in it."""
    provider, bill = Provider(), Bill()
    egress = egress_of(provider)
    asking = Asking(egress, egress.admit(None, bill))
    for part in (line(START), line(END) + line(STOP)):
        provider.parts.put_nowait(part)
        await asyncio.wait_for(asking.came.get(), 10)
    assert (bill.usage, bill.cost_usd) == (Usage(100, 90), 280.0)
    await asking.end()
    assert bill.spent()[0].requests == 1


async def test_an_answer_that_still_streams_when_the_run_ends_is_paid_as_far_as_it_came() -> None:
    """A run is ended in the middle of an answer: counted at once, and not again when the stream ends."""
    provider, bill = Provider(), Bill()
    egress = egress_of(provider)
    token = egress.admit(None, bill)
    asking = Asking(egress, token)
    provider.parts.put_nowait(line(START))
    await asyncio.wait_for(asking.came.get(), 10)
    egress.dismiss(token)
    (spend,) = bill.spent()
    assert (spend.model, spend.requests, spend.input, spend.is_estimated) == ("claude-x", 1, 100, True)
    await asking.end()
    assert bill.spent() == (spend,)


async def test_what_is_refused_costs_nothing() -> None:
    """An error of the provider is not a request that is paid for; nor is a count of tokens."""
    for provider, path in ((Provider(429), "/v1/messages"), (Provider(), "/v1/messages/count_tokens")):
        bill = Bill()
        egress = egress_of(provider)
        asking = Asking(egress, egress.admit(None, bill), path)
        for part in (line(START), line(END), line(STOP), None):
            provider.parts.put_nowait(part)
        await asyncio.wait_for(asking.task, 10)
        assert bill.spent() == ()


async def test_requests_beside_each_other_share_one_limit() -> None:
    """Of money and of turns: what is under way counts, or twenty at once would each find the purse full."""
    for limits in ({"limit_usd": 1.0}, {"limit_usd": None, "limit_requests": 1}):
        provider, bill = Provider(), Bill()
        egress = egress_of(provider)
        token = egress.admit(limits["limit_usd"], bill, limits.get("limit_requests"))
        first = Asking(egress, token)
        provider.parts.put_nowait(line(START))
        await asyncio.wait_for(first.came.get(), 10)
        others = [Asking(egress, token) for _ in range(5)]
        refused = [await asyncio.wait_for(other.came.get(), 10) for other in others]
        assert all(b"money is spent" in each or b"turns are used" in each for each in refused)
        for asking in (first, *others):
            await asking.end()
        assert bill.spent()[0].requests == 1

"""Servers over Streamable HTTP and inside the node: both eras, and each way in which HTTP fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import mcp_types as types
import pytest
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp_types import CLIENT_CAPABILITIES_META_KEY
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from tasks.errors import SettingsError
from tasks.outcome import Failure
from worker.testing.upstreams_kit import Kit, running, served, until
from worker.upstreams.inprocess import find_server
from worker.upstreams.life import Limits

Context = ServerRequestContext[Any, Any]
FORM = types.ElicitRequest(
    params=types.ElicitRequestFormParams(message="Sure?", requested_schema={"type": "object", "properties": {}})
)


class Tools:
    """A server of the 2026 era, and what it saw."""

    def __init__(self) -> None:
        self.running, self.ended = asyncio.Event(), asyncio.Event()
        self.seen: list[Any] = []
        self.names = ["ask", "slow", "big"]

    def server(self) -> Server[Any]:
        """A new lowlevel server over these tools."""
        return Server("modern", version="1", on_list_tools=self._list, on_call_tool=self._call)

    async def _list(self, _context: Context, _params: object) -> types.ListToolsResult:
        listed = [types.Tool(name=name, input_schema={"type": "object"}) for name in self.names]
        return types.ListToolsResult(tools=listed)

    async def _call(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        if params.name == "slow":
            await context.session.report_progress(1, 2, "half")
            self.running.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.set()
        if params.name == "big":
            return types.CallToolResult(content=[types.TextContent(type="text", text="x" * 300_000)])
        self.seen.append((context.params or {})["_meta"].get(CLIENT_CAPABILITIES_META_KEY))
        if params.request_state != "state-1":
            return types.InputRequiredResult(input_requests={"sure": FORM}, request_state="state-1")
        said = (params.input_responses or {})["sure"]
        return types.CallToolResult(content=[], structured_content={"said": said.model_dump(exclude_none=True)})


class Switch:
    """In front of an app: lets requests through, or fails them as told."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.response: Response | None = None
        self.refusals = 1_000_000
        self.is_cut = self.is_endless = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and self.response is not None and self.refusals > 0:
            self.refusals -= 1
            await self.response(scope, receive, send)
        elif scope["type"] == "http" and self.is_endless:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while self.is_endless:
                await send({"type": "http.response.body", "body": b" " * 10_000, "more_body": True})
                await asyncio.sleep(0)
        elif scope["type"] == "http" and self.is_cut:
            headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            raise ConnectionError("cut")
        else:
            await self.app(scope, receive, send)


@pytest.fixture
def tools() -> Tools:
    """What the server does."""
    return Tools()


@pytest.fixture
def switch(tools: Tools) -> Switch:
    """The app, in a mood to be chosen."""
    return Switch(tools.server().streamable_http_app(json_response=False))


@contextlib.asynccontextmanager
async def over_http(app: Any) -> AsyncIterator[Kit]:
    """The node, with that app's server over HTTP."""
    async with served(app) as port:
        form = {"mcpServers": {"web": {"url": f"http://127.0.0.1:{port}/mcp", "headers": {"X-Key": "${SECRET}"}}}}
        async with running(form, limits=Limits(result_bytes=100_000)) as kit:
            assert kit.status("web").protocol == "2026-07-28", kit.status("web")
            yield kit


@pytest.fixture
async def http(switch: Switch) -> AsyncIterator[Kit]:
    """The server behind the switch."""
    async with over_http(switch) as kit:
        yield kit


@pytest.fixture(params=["http", "inside"])
async def either(request: pytest.FixtureRequest, tools: Tools) -> AsyncIterator[Kit]:
    """The same server over HTTP, and as an object inside the node."""
    inside = running({}, add={"web": tools.server()}, limits=Limits(result_bytes=100_000))
    async with over_http(tools.server().streamable_http_app()) if request.param == "http" else inside as kit:
        yield kit


async def test_a_question_of_the_tool_is_passed_on_and_its_answer_back(either: Kit, tools: Tools) -> None:
    """InputRequiredResult comes as it is, never answered by the node; the next call carries responses and state."""
    asked = await either.call("web.ask")
    assert (asked["resultType"], asked["requestState"]) == ("input_required", "state-1")
    assert asked["inputRequests"]["sure"]["method"] == "elicitation/create"
    meta = {"requestState": "state-1", "inputResponses": {"sure": {"action": "accept", "content": {"a": 1}}}}
    done = await either.call("web.ask", meta=meta)
    assert done["structuredContent"]["said"] == {"action": "accept", "content": {"a": 1}}


async def test_the_server_sees_what_the_caller_can_do(either: Kit, tools: Tools) -> None:
    """A server asks only clients that can answer; that is the client at the door, not the node."""
    mine = {"elicitation": {"form": {}}}
    await either.call("web.ask", meta={"_meta": {CLIENT_CAPABILITIES_META_KEY: mine}})
    await either.call("web.ask")
    assert tools.seen == [mine, {}]


async def test_progress_and_cancellation_pass(either: Kit, tools: Tools) -> None:
    """A cancelled call ends at the server, in the era where closing the stream is the signal."""
    told: list[object] = []
    task = asyncio.create_task(either.call("web.slow", on_progress=lambda *report: told.append(report)))
    await until(lambda: told and tools.running.is_set())
    task.cancel()
    await asyncio.wait({task})
    await until(tools.ended.is_set)
    assert told == [(1.0, 2.0, "half")]


async def test_a_large_result_is_refused(either: Kit) -> None:
    """The limit holds on every transport, and the session survives it."""
    error = await either.refusal("web.big")
    assert (error.code, error.failure) == ("result_too_large", Failure.PERMANENT)
    assert (await either.call("web.ask"))["resultType"] == "input_required"


async def test_a_body_without_end_is_not_read_to_its_end(http: Kit, switch: Switch) -> None:
    """Reading stops at the limit; a server cannot fill the node's memory."""
    switch.is_endless = True
    error = await http.refusal("web.ask")
    switch.is_endless = False
    assert (error.code, error.failure) == ("result_too_large", Failure.PERMANENT)
    assert (await http.call("web.ask"))["resultType"] == "input_required"


BUSY = [
    pytest.param(429, {"retry-after": "7"}, ("server_busy", Failure.NOT_STARTED, 7.0), id="429"),
    pytest.param(503, {"retry-after": "1e9"}, ("server_busy", Failure.NOT_STARTED, 3600.0), id="503 for ever"),
    pytest.param(503, {"retry-after": "nan"}, ("server_busy", Failure.NOT_STARTED, None), id="503 nonsense"),
    pytest.param(503, {}, ("server_busy", Failure.NOT_STARTED, None), id="503"),
    pytest.param(401, {}, ("server_unauthorized", Failure.NOT_STARTED, None), id="401"),
    pytest.param(500, {}, ("server_error", Failure.MAYBE_STARTED, None), id="500"),
    pytest.param(413, {}, ("server_error", Failure.PERMANENT, None), id="413"),
]


@pytest.mark.parametrize(("status", "headers", "expected"), BUSY)
async def test_an_http_error_says_whether_it_started(
    http: Kit, switch: Switch, status: int, headers: dict[str, str], expected: tuple[str, Failure, float | None]
) -> None:
    """The status decides, Retry-After is honoured within bounds, and only this one call fails."""
    switch.response = PlainTextResponse("no", status_code=status, headers=headers)
    error = await http.refusal("web.ask")
    switch.response = None
    assert (error.code, error.failure, error.retry_after_s) == expected
    assert (await http.call("web.ask"))["resultType"] == "input_required"
    assert http.status("web").restarts == 0


async def test_a_body_cut_off_may_have_started(http: Kit, switch: Switch) -> None:
    """The request was read; what came of it nobody knows."""
    switch.is_cut = True
    error = await http.refusal("web.ask")
    assert (error.code, error.failure) == ("connection_lost", Failure.MAYBE_STARTED)


async def test_a_server_that_is_away_refuses_calls_and_comes_back(tools: Tools) -> None:
    """Connection refused: nothing started, its tools leave the offer, and return when it answers again."""
    async with served(tools.server().streamable_http_app()) as port:
        pass
    form = {"mcpServers": {"web": {"url": f"http://127.0.0.1:{port}/mcp"}}}
    async with running(form) as kit:
        assert "no connection" in str(kit.status("web").error)
        async with served(tools.server().streamable_http_app(), port):
            await until(lambda: "web.ask" in kit.names())
            await kit.call("web.ask")
        error = await kit.refusal("web.ask")
        assert error.failure is Failure.NOT_STARTED
        await until(lambda: "web.ask" not in kit.names())
        async with served(tools.server().streamable_http_app(), port):
            await until(lambda: "web.ask" in kit.names())
            await kit.call("web.ask")


async def test_a_busy_answer_to_the_probe_is_no_verdict_on_the_era(switch: Switch) -> None:
    """A server that was busy when it was asked for its protocol is asked again, not spoken to in the old one."""
    switch.response, switch.refusals = PlainTextResponse("no", status_code=503), 1
    async with (
        served(switch) as port,
        running({"mcpServers": {"web": {"url": f"http://127.0.0.1:{port}/mcp"}}}) as kit,
    ):
        await until(lambda: kit.status("web").state == "ready")
        assert kit.status("web").protocol == "2026-07-28"


async def test_changed_tools_are_noticed_by_asking(tools: Tools) -> None:
    """A server that does not say that its tools changed is asked now and then."""
    async with served(tools.server().streamable_http_app()) as port:
        form = {"mcpServers": {"web": {"url": f"http://127.0.0.1:{port}/mcp"}}}
        async with running(form, limits=Limits(health_every_s=0.05)) as kit:
            tools.names.append("more")
            await until(lambda: "web.more" in kit.names())
            tools.names.remove("ask")
            await until(lambda: "web.ask" not in kit.names())


async def test_a_module_that_cannot_be_had_is_its_own_error() -> None:
    """The node starts, and says which module and why."""
    form = {"mcpfleet": {"modules": {"a": "no_such_module:x", "b": "json:loads", "c": "json:nothing"}}}
    async with running(form) as kit:
        assert "No module named 'no_such_module'" in str(kit.status("a").error)
        assert kit.status("b").state == kit.status("c").state == "failed"
        assert kit.upstreams.capabilities() == {"probe"}


def test_a_module_may_be_a_server_or_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`MCPServer`, lowlevel `Server`, or a function without arguments."""
    import json as module

    high, low = MCPServer("high"), Server[Any]("low")
    for value, name in ((high, "high"), (low, "low"), (lambda: high, "high")):
        monkeypatch.setattr(module, "made", value, raising=False)
        assert find_server("json:made").name == name
    monkeypatch.setattr(module, "made", lambda: 1, raising=False)
    with pytest.raises(SettingsError, match="is a int, not an mcp Server"):
        find_server("json:made")

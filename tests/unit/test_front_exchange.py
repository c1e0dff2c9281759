"""One POST to the MCP endpoint: ours and the SDK's path, long calls, bad bodies, who may call."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette

from orchestrator.api import strict_json
from orchestrator.front.app import McpFront
from orchestrator.front.calls import Asked, ToolCalls
from orchestrator.identity.doors import Authenticators
from orchestrator.testing.doors import CLIENT_TOKEN, JOIN_TOKEN, NODE_TOKEN, FakeTokens
from orchestrator.testing.front import SETTINGS, TASKS, Toolbox, front_under_test, legacy_headers, modern
from orchestrator.testing.inprocess_fleet import InProcessFleet
from orchestrator.testing.serving import serving
from orchestrator.testing.waiting import until
from tasks.clock import SystemClock
from tasks.invocation import Principal, State

WITHIN_S = 20.0


async def post(url: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    """One request, answered in full."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    async with httpx.AsyncClient(timeout=WITHIN_S, trust_env=False) as http:
        return await http.post(url, content=content, headers=headers)


def call(tool: str, arguments: dict[str, Any] | None = None, **more: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """An ordinary tools/call."""
    return modern("tools/call", {"name": tool, "arguments": arguments or {}}, **more)


def legacy(tool: str, **meta: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The same, of the handshake era."""
    params = {"name": tool, "arguments": {"a": 1}, **({"_meta": meta} if meta else {})}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, legacy_headers()


def message(response: httpx.Response) -> dict[str, Any]:
    """The last JSON-RPC message of a response of either form, without what differs from call to call."""
    text = response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        text = [line[6:] for line in text.splitlines() if line.startswith("data: ")][-1]
    found: dict[str, Any] = orjson.loads(text)
    (found.get("result") or {}).get("_meta", {}).pop("mcpfleet/invocation", None)
    ((found.get("error") or {}).get("data") or {}).pop("invocation", None)
    return found


@pytest.mark.parametrize("tool", ["t.echo", "t.fail", "t.break", "t.ask", "t.nothing", "fleet.get"])
async def test_both_paths_say_the_same_in_the_2026_era(tool: str) -> None:
    """The short path is the SDK's, only cheaper: a progress token sends the same call the long way."""
    async with front_under_test(inline_window_s=10.0) as it:
        body, headers = call(tool, {"a": 1}, capabilities={"elicitation": {}})
        short = await post(it.url, body, headers)
        body["params"]["_meta"]["progressToken"] = 1
        long = await post(it.url, body, headers)
        assert (short.status_code, message(short)) == (long.status_code, message(long))


@pytest.mark.parametrize("tool", ["t.echo", "t.fail", "t.break", "t.nothing"])
async def test_both_paths_say_the_same_in_the_handshake_era(tool: str) -> None:
    """Old clients get what the SDK would give them."""
    async with front_under_test(inline_window_s=10.0) as it:
        short = await post(it.url, *legacy(tool))
        long = await post(it.url, *legacy(tool, progressToken=1))
        assert message(short) == message(long)


async def test_a_result_passes_as_its_tool_gave_it() -> None:
    """Big integers, unknown members and structured content reach the client unchanged."""
    async with front_under_test() as it:
        answer = await post(it.url, *call("t.big"))
        assert f'"n":{2**70}' in answer.text
        assert answer.json()["result"]["extra"] == {"kept": True}


async def test_an_answer_names_its_invocation() -> None:
    """So that whoever got it can ask why it ran where it did."""
    async with front_under_test() as it:
        answer = await post(it.url, *call("t.echo"))
        assert answer.json()["result"]["_meta"]["mcpfleet/invocation"] in it.fleet.states()


async def test_a_tool_that_needs_undeclared_input_is_refused() -> None:
    """A server must not ask for what the client cannot give: -32021, naming it."""
    async with front_under_test() as it:
        answer = await post(it.url, *call("t.ask"))
        assert answer.status_code == httpx.codes.BAD_REQUEST
        assert answer.json()["error"]["data"] == {"requiredCapabilities": {"elicitation": {}}}


async def test_a_long_call_becomes_a_stream_with_pings() -> None:
    """No proxy cuts a call that is silent for long; its result comes on the same response."""
    async with front_under_test() as it, httpx.AsyncClient(timeout=WITHIN_S, trust_env=False) as http:
        body, headers = call("t.hold")
        async with http.stream("POST", it.url, content=orjson.dumps(body), headers=headers) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            lines = answer.aiter_lines()
            assert await anext(lines) == ": ping"
            it.tools.release.set()
            last = [line async for line in lines if line.startswith("data: ")][-1]
        assert orjson.loads(last[6:])["result"]["content"][0]["text"] == "ok"


@pytest.mark.parametrize("form", ["short", "sdk", "legacy", "legacy-sdk"])
async def test_a_client_that_goes_away_cancels_its_call(form: str) -> None:
    """Closing the response is how the 2026 era cancels; an old client that is gone waits for nothing either."""
    body, headers = legacy("t.hold") if form.startswith("legacy") else call("t.hold")
    if form.endswith("sdk"):
        body["params"].setdefault("_meta", {})["progressToken"] = 1
    async with front_under_test() as it:
        async with httpx.AsyncClient(timeout=WITHIN_S, trust_env=False) as http:
            posting = asyncio.create_task(http.post(it.url, content=orjson.dumps(body), headers=headers))
            await until(lambda: it.tools.calls)
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)
        await until(lambda: set(it.fleet.states().values()) == {State.CANCELLED})
        assert it.tools.stopped == ["t.hold"]


@pytest.mark.parametrize(("is_leaving", "state"), [(True, State.SUCCEEDED), (False, State.CANCELLED)])
async def test_our_own_shutdown_cancels_no_call(is_leaving: bool, state: State) -> None:
    """Whoever restarts the orchestrator stops no work: the Invocation goes on, and its client asks again."""
    tools = Toolbox()
    fleet = InProcessFleet(tools.specs(), tools.run)
    calls = ToolCalls(fleet, SystemClock(), abandon_timeout_s=WITHIN_S)
    asked = Asked("t.hold", {"name": "t.hold"}, Principal("alice"))
    invocation = await calls.accept(asked)
    waiting = asyncio.create_task(calls.finish(invocation, asked))
    await until(lambda: tools.calls)
    if is_leaving:
        calls.leave_calls_running()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    tools.release.set()
    assert (await fleet.wait(invocation.id, asked.principal, WITHIN_S)).state is state


async def test_a_long_call_is_a_task_for_whoever_knows_tasks() -> None:
    """The task's id is the Invocation's, which is durable already."""
    async with front_under_test() as it:
        answer = await post(it.url, *call("t.hold", capabilities=TASKS))
        created = answer.json()["result"]
        assert (created["resultType"], created["status"]) == ("task", "working")
        assert it.fleet.states()[created["taskId"]] is State.RUNNING


async def test_progress_comes_before_the_result_and_in_order() -> None:
    """Whoever gives a token hears every report of the tool."""
    async with front_under_test() as it:
        body, headers = call("t.count")
        body["params"]["_meta"]["progressToken"] = "p1"
        answer = await post(it.url, body, headers)
        heard = [orjson.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        assert [one["params"]["message"] for one in heard[:-1]] == ["step 0", "step 1", "step 2"]
        assert all(one["params"]["progressToken"] == "p1" for one in heard[:-1])
        assert heard[-1]["id"] == 1


@pytest.mark.parametrize(
    "bad",
    [b"", b"{", b'{"a":1,"a":2}', b"[" * 500, b'{"jsonrpc":"2.0","id":1e999}', b"\xff"],
    ids=["empty", "cut", "key-twice", "deep", "infinite", "not-utf-8"],
)
async def test_a_body_that_is_not_one_clear_json_text_is_refused(bad: bytes) -> None:
    """-32700 and 400: two readers of the same text must not take it differently."""
    front = McpFront(_NoFleet(), Authenticators([FakeTokens()]), SETTINGS, parse=strict_json.parse)  # type: ignore[arg-type]
    app = Starlette(routes=front.routes(), lifespan=lambda _: front.running())
    async with serving(app) as base:
        answer = await post(f"{base}/mcp", bad, modern("tools/list")[1])
        assert answer.status_code == httpx.codes.BAD_REQUEST
        assert answer.json()["error"]["code"] == -32700


class _NoFleet:
    tools_version = 1


async def test_a_body_over_the_limit_is_refused() -> None:
    """413, before it is parsed."""
    async with front_under_test(body_limit_bytes=1000) as it:
        body, headers = call("t.echo", {"a": "x" * 2000})
        assert (await post(it.url, body, headers)).status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize(
    ("token", "status", "challenge"),
    [
        (None, 401, 'Bearer realm="mcpfleet"'),
        ("nobody", 401, 'Bearer realm="mcpfleet", error="invalid_token"'),
        (NODE_TOKEN, 403, 'Bearer realm="mcpfleet", error="insufficient_scope", scope="tools:read"'),
        (JOIN_TOKEN, 403, 'Bearer realm="mcpfleet", error="insufficient_scope", scope="tools:read"'),
        (CLIENT_TOKEN, 200, None),
    ],
)
async def test_only_clients_come_in(token: str | None, status: int, challenge: str | None) -> None:
    """No token, a foreign one or a node's opens nothing, and the answer says what is asked for."""
    async with front_under_test() as it:
        body, headers = call("t.echo")
        headers.pop("authorization")
        answer = await post(it.url, body, headers | ({"authorization": f"Bearer {token}"} if token else {}))
        assert (answer.status_code, answer.headers.get("www-authenticate")) == (status, challenge)
        assert len(it.tools.calls) == (status == httpx.codes.OK)


@pytest.mark.parametrize(
    ("header", "value", "status"), [("host", "evil.example", 421), ("origin", "http://evil.example", 403)]
)
async def test_a_page_that_rebinds_a_name_gets_nothing(header: str, value: str, status: int) -> None:
    """Host and Origin are checked also on the short path."""
    async with front_under_test() as it:
        body, headers = call("t.echo")
        assert (await post(it.url, body, headers | {header: value})).status_code == status
        assert not it.tools.calls


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mcp-name": "t.fail"}, -32020),
        ({"mcp-method": "tools/list"}, -32020),
        ({"mcp-protocol-version": "2099-01-01"}, -32020),
    ],
)
async def test_headers_that_contradict_the_body_are_refused(change: dict[str, str], code: int) -> None:
    """What an intermediary routed by is what runs."""
    async with front_under_test() as it:
        body, headers = call("t.echo")
        answer = await post(it.url, body, headers | change)
        assert (answer.status_code, answer.json()["error"]["code"]) == (httpx.codes.BAD_REQUEST, code)
        assert not it.tools.calls


@pytest.mark.parametrize(("header", "status"), [(None, 400), ("eu", 200), ("us", 400)])
async def test_parameter_headers_are_checked(header: str | None, status: int) -> None:
    """A tool whose schema mirrors an argument into a header is never called with another value."""
    async with front_under_test() as it:
        body, headers = call("t.header", {"region": "eu"})
        extra = {"mcp-param-region": header} if header else {}
        assert (await post(it.url, body, headers | extra)).status_code == status


async def test_a_bad_requirement_is_refused_before_anything_is_accepted() -> None:
    """-32602 naming the key."""
    async with front_under_test() as it:
        body, headers = call("t.echo")
        body["params"]["_meta"]["mcpfleet/priority"] = "high"
        answer = await post(it.url, body, headers)
        assert answer.json()["error"]["data"]["key"] == "priority"
        assert not it.fleet.states()


async def test_the_project_header_reaches_the_call() -> None:
    """Also on the short path."""
    async with front_under_test() as it:
        body, headers = call("t.echo")
        await post(it.url, body, headers | {"x-mcpfleet-project": "shop"})
        assert [one.project for one in it.tools.calls] == ["shop"]


@pytest.mark.parametrize("form", ["short", "sdk"])
async def test_an_old_client_cancels_by_naming_its_request(form: str) -> None:
    """The handshake era cancels by notification: it ends that client's call and no other's with the same id."""
    async with front_under_test() as it:
        sessions = [await _session(it.url), await _session(it.url)]
        body, headers = legacy("t.hold")
        if form == "sdk":
            body["params"]["_meta"] = {"progressToken": 1}
        posts = [asyncio.create_task(post(it.url, body, headers | {"mcp-session-id": one})) for one in sessions]
        await until(lambda: len(it.tools.calls) == len(posts))
        said = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        ack = await post(it.url, said, headers | {"mcp-session-id": sessions[0]})
        assert ack.status_code == httpx.codes.ACCEPTED
        await until(lambda: it.tools.stopped)
        it.tools.release.set()
        first, second = await asyncio.gather(*posts)
        assert message(first)["error"]["data"]["ending"] == "cancelled"
        assert message(second)["result"]["content"][0]["text"] == "ok"


async def _session(url: str) -> str:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    answer = await post(url, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}, legacy_headers())
    return str(answer.headers["mcp-session-id"])


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_without_sessions_there_is_nothing_to_listen_to_or_end(method: str) -> None:
    """405 at once, so that no client holds an idle stream."""
    async with front_under_test() as it, httpx.AsyncClient(timeout=WITHIN_S, trust_env=False) as http:
        answer = await http.request(method, it.url, headers=legacy_headers())
        assert (answer.status_code, answer.headers["allow"]) == (httpx.codes.METHOD_NOT_ALLOWED, "POST")

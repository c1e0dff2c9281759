"""Clients as they come: the plain tools, list changes, sessions of the handshake era, HTTP+SSE."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import mcp_types as types
import orjson
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from orchestrator.testing.doors import CLIENT_TOKEN
from orchestrator.testing.front import FrontUnderTest, front_under_test
from orchestrator.testing.waiting import until

WITHIN_S = 20.0
BEARER = {"authorization": f"Bearer {CLIENT_TOKEN}"}


def connect(http: httpx2.AsyncClient, it: FrontUnderTest, mode: str, **more: Any) -> Client:
    """A client of one era."""
    return Client(streamable_http_client(it.url, http_client=http), mode=mode, **more)


def said(result: Any) -> dict[str, Any]:
    """The structured content of a plain tool's answer."""
    assert not result.is_error, result.content
    return dict(result.structured_content)


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_client_without_tasks_submits_asks_and_cancels(mode: str) -> None:
    """The plain tools do for it what the tasks extension does for others."""
    async with front_under_test() as it, httpx2.AsyncClient(headers=BEARER) as http, connect(http, it, mode) as client:
        submitted = said(await client.call_tool("fleet.submit", {"tool": "t.hold", "arguments": {"a": 1}}))
        held = said(await client.call_tool("fleet.get", {"id": submitted["id"], "wait_s": 0.01}))
        assert (held["state"], held["result"], held["node"]) == ("running", None, "here")
        assert said(await client.call_tool("fleet.why", {"id": submitted["id"]}))["summary"]
        assert said(await client.call_tool("fleet.cancel", {"id": submitted["id"]}))["state"] == "cancelled"
        done = said(await client.call_tool("fleet.submit", {"tool": "t.echo", "project": "shop"}))
        got = said(await client.call_tool("fleet.get", {"id": done["id"], "wait_s": WITHIN_S}))
        assert (got["state"], got["project"], got["result"]["content"][0]["text"]) == ("succeeded", "shop", "ok")


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("fleet.submit", {}, "tool"),
        ("fleet.submit", {"tool": "t.nothing"}, "t.nothing"),
        ("fleet.submit", {"tool": "t.echo", "projct": "x"}, "projct"),
        ("fleet.get", {"id": "nobody-knows-this"}, "nobody-knows-this"),
        ("fleet.get", {"id": "x", "wait_s": -1}, "wait_s"),
    ],
)
async def test_a_plain_tools_mistakes_are_told_to_the_model(tool: str, arguments: dict[str, Any], words: str) -> None:
    """`isError` and what was wrong, so that the model can call again."""
    async with front_under_test() as it, httpx2.AsyncClient(headers=BEARER) as http:
        async with connect(http, it, "2026-07-28") as client:
            answer = await client.call_tool(tool, arguments)
        assert answer.is_error
        assert words in answer.content[0].text  # type: ignore[union-attr]


async def test_a_listening_client_hears_of_new_tools() -> None:
    """2026 era: over subscriptions/listen, when the fleet's list changes."""
    async with front_under_test() as it, httpx2.AsyncClient(headers=BEARER, timeout=WITHIN_S) as http:
        async with connect(http, it, "2026-07-28") as client, asyncio.timeout(WITHIN_S):
            async with client.listen(tools_list_changed=True) as events:
                it.fleet.set_tools(it.tools.specs()[:1])
                await anext(aiter(events))
            listed = await client.list_tools()
        assert [tool.name for tool in listed.tools if not tool.name.startswith("fleet.")] == ["t.echo"]


async def test_a_session_of_the_handshake_era_hears_of_new_tools() -> None:
    """Where sessions are kept; and the handshake says so."""
    heard = asyncio.Event()

    async def on_message(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            heard.set()

    async with (
        front_under_test(legacy_sessions=True) as it,
        httpx2.AsyncClient(headers=BEARER) as http,
        connect(http, it, "legacy", message_handler=on_message) as client,
        asyncio.timeout(WITHIN_S),
    ):
        assert client.server_capabilities.tools is not None
        assert client.server_capabilities.tools.list_changed

        def is_told() -> bool:
            it.fleet.set_tools(it.tools.specs()[:1])
            return heard.is_set()

        await until(is_told)


async def test_a_session_is_asked_what_a_tool_needs() -> None:
    """A tool's questions reach an old client as requests, and its answers reach the tool."""

    async def on_elicit(_ctx: Any, _params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"v": "yes"})

    async with front_under_test(legacy_sessions=True) as it, httpx2.AsyncClient(headers=BEARER) as http:
        async with connect(http, it, "legacy", elicitation_callback=on_elicit) as client:
            answer = await client.call_tool("t.ask", {})
        assert answer.content[0].text == "yes yes s1"  # type: ignore[union-attr]


@pytest.mark.parametrize("legacy_sessions", [True, False])
async def test_a_client_that_cannot_be_asked_is_told_so(legacy_sessions: bool) -> None:
    """`isError` with the reason, not a protocol error and not a call that hangs."""
    async with front_under_test(legacy_sessions=legacy_sessions) as it, httpx2.AsyncClient(headers=BEARER) as http:
        async with connect(http, it, "legacy") as client:
            answer = await client.call_tool("t.ask", {})
        assert answer.is_error
        assert "needs input" in answer.content[0].text  # type: ignore[union-attr]


async def test_the_2026_era_answers_by_retrying() -> None:
    """Questions come back as the result, the second call carries answers and state."""

    async def on_elicit(_ctx: Any, _params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"v": "yes"})

    async with front_under_test() as it, httpx2.AsyncClient(headers=BEARER) as http:
        async with connect(http, it, "2026-07-28", elicitation_callback=on_elicit) as client:
            answer = await client.call_tool("t.ask", {})
        assert answer.content[0].text == "yes yes s1"  # type: ignore[union-attr]


async def test_the_old_transport_is_served_where_it_is_switched_on() -> None:
    """HTTP+SSE, with the same guard."""
    async with front_under_test(sse_path="/sse") as it:
        url = it.url.replace("/mcp", "/sse")
        async with Client(sse_client(url, headers=BEARER), mode="legacy") as client:
            assert (await client.call_tool("t.echo", {"a": 1})).structured_content == {"a": 1}
        async with httpx2.AsyncClient() as http:
            assert (await http.get(url)).status_code == httpx2.codes.UNAUTHORIZED


async def test_the_old_transport_is_off_by_default() -> None:
    """It is deprecated, and its sessions tie a client to one replica."""
    async with front_under_test() as it, httpx2.AsyncClient(headers=BEARER) as http:
        assert (await http.get(it.url.replace("/mcp", "/sse"))).status_code == httpx2.codes.NOT_FOUND


async def test_tools_are_listed_with_how_long_the_list_holds() -> None:
    """`ttlMs` and `cacheScope` where the era has them."""
    async with front_under_test() as it, httpx2.AsyncClient(headers=BEARER) as http:
        async with connect(http, it, "2026-07-28") as client:
            listed = await client.list_tools()
        assert (listed.ttl_ms, listed.cache_scope) == (5000, "private")
        assert orjson.dumps(listed.model_dump(mode="json"))

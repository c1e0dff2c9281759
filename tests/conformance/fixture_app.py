"""The front as the conformance suite meets it: the real door, the fixture's tools behind a fleet.

`make_app` takes the fleet, so that the same fixture stands over one in this process and over the
real one. Added to the front's own server here, because a fleet cannot carry them: resources,
prompts and completion (mcpfleet serves none), logging, and the triggers of list changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import mcp_types as types
import orjson
from fixture_tools import TOOLS, make_server, png
from mcp.server.runner import modern_on_request
from mcp.server.subscriptions import PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp_types import CLIENT_CAPABILITIES_META_KEY, INVALID_PARAMS
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from orchestrator.front.app import McpFront
from orchestrator.front.ports import Fleet
from orchestrator.front.settings import FrontSettings
from orchestrator.presented import Presented
from orchestrator.testing.inprocess_fleet import InProcessFleet, Progress, ToolFailed
from tasks.invocation import Call, Principal
from tasks.mcp_direct import DirectContext, envelope
from tasks.tool import ToolSpec

SERVER = "fixture"
INLINE_WINDOW_S = 0.5
"""The suite expects tasks of tools that take a second, and answers of those that take none."""
TOKEN = "fixture-token"
SUITE_PATH = "/mcp"
EMPTY = {"type": "object", "properties": {}}
HERE = {
    name: {"name": name, "description": f"Conformance: {name}", "inputSchema": EMPTY}
    for name in (
        "test_tool_with_logging",
        "test_logging_tool",
        "test_trigger_tool_change",
        "test_trigger_prompt_change",
    )
}
PROMPTS: dict[str, list[str]] = {
    "test_simple_prompt": [],
    "test_prompt_with_arguments": ["arg1", "arg2"],
    "test_prompt_with_embedded_resource": ["resourceUri"],
    "test_prompt_with_image": [],
    "test_input_required_result_prompt": [],
}
RESOURCES = {
    "test://static-text": ("text/plain", "This is the content of the static text resource."),
    "test://static-binary": ("image/png", None),
    "test://watched-resource": ("text/plain", "watched"),
}
CACHE = {"resultType": "complete", "ttlMs": 1000, "cacheScope": "private"}


class OneToken:
    """The suite sends no token: the app adds this one, and the guard checks it as ever."""

    async def verify(self, presented: Presented) -> Principal | None:
        """The suite's principal."""
        return Principal("suite", roles=frozenset({"developer"})) if presented.token == TOKEN else None


def specs() -> list[ToolSpec]:
    """The fixture's tools as a node would offer them."""
    return [ToolSpec(server=SERVER, definition=tool.definition(name)) for name, tool in TOOLS.items()]


@contextlib.asynccontextmanager
async def inprocess_fleet() -> AsyncIterator[InProcessFleet]:
    """A fleet that runs the fixture's server in this process."""
    server = make_server()
    async with server.lifespan(server) as state:
        on_request = modern_on_request(server, state)

        async def run(call: Call, on_progress: Progress) -> str:
            carried = orjson.loads(call.meta_json or "{}")
            capabilities = carried.pop("_meta", {}).get(CLIENT_CAPABILITIES_META_KEY, {})
            params = {
                "name": call.tool.removeprefix(f"{SERVER}."),
                "arguments": orjson.loads(call.arguments_json),
                "_meta": envelope(types.Implementation(name="node", version="1"), capabilities),
                **carried,
            }
            try:
                result = await on_request(DirectContext(on_progress=on_progress), "tools/call", params)
            except MCPError as error:
                raise ToolFailed("server_error", error.message) from error
            return orjson.dumps(result).decode()

        yield InProcessFleet(specs(), run)


def make_app(fleet: Fleet, *, legacy_sessions: bool = True) -> Starlette:
    """The whole app."""
    settings = FrontSettings(
        name="mcpfleet-fixture",
        path=SUITE_PATH,
        inline_window_s=INLINE_WINDOW_S,
        legacy_sessions=legacy_sessions,
        bare_names=True,
    )
    front = McpFront(fleet, OneToken(), settings)
    _add_lists(front)
    _wrap_tools(front)
    app = Starlette(routes=front.routes(), lifespan=lambda _: front.running())
    app.add_middleware(_Authorized)
    return app


class _Authorized:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [*scope["headers"], (b"authorization", f"Bearer {TOKEN}".encode())]
        await self._app(scope, receive, send)


def _wrap_tools(front: McpFront) -> None:
    """Four tools that act on the front's own connection come before the fleet's."""
    server = front.server
    listed, called = server.get_request_handler("tools/list"), server.get_request_handler("tools/call")
    assert listed is not None
    assert called is not None

    async def list_tools(ctx: Any, params: Any) -> Any:
        page = await listed.handler(ctx, params)
        page["tools"] = [*HERE.values(), *page["tools"]]
        return page

    async def call_tool(ctx: Any, params: Any) -> Any:
        if params.name not in HERE:
            return await called.handler(ctx, params)
        if params.name == "test_trigger_tool_change":
            await front.bus.publish(ToolsListChanged())
        elif params.name == "test_trigger_prompt_change":
            await front.bus.publish(PromptsListChanged())
        else:
            for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
                await ctx.session.send_log_message("info", said, related_request_id=ctx.request_id)
                await asyncio.sleep(0.05)
        return types.CallToolResult(content=[types.TextContent(text="done")])

    server.add_request_handler("tools/list", listed.params_type, list_tools)
    server.add_request_handler("tools/call", called.params_type, call_tool)


def _add_lists(front: McpFront) -> None:
    add = front.server.add_request_handler
    add("resources/list", types.PaginatedRequestParams, _list_resources)
    add("resources/templates/list", types.PaginatedRequestParams, _list_templates)
    add("resources/read", types.ReadResourceRequestParams, _read_resource)
    add("resources/subscribe", types.SubscribeRequestParams, _nothing)
    add("resources/unsubscribe", types.UnsubscribeRequestParams, _nothing)
    add("prompts/list", types.PaginatedRequestParams, _list_prompts)
    add("prompts/get", types.GetPromptRequestParams, _get_prompt)
    add("completion/complete", types.CompleteRequestParams, _complete)
    add("logging/setLevel", types.SetLevelRequestParams, _nothing)


async def _nothing(_ctx: Any, _params: Any) -> types.EmptyResult:
    return types.EmptyResult()


async def _complete(_ctx: Any, params: Any) -> dict[str, Any]:
    values = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return {"resultType": "complete", "completion": {"values": values, "total": len(values), "hasMore": False}}


async def _list_resources(_ctx: Any, _params: Any) -> dict[str, Any]:
    shown = [
        {"uri": uri, "name": uri.removeprefix("test://"), "description": f"Conformance: {uri}", "mimeType": mime}
        for uri, (mime, _) in RESOURCES.items()
    ]
    return {"resources": shown, **CACHE}


async def _list_templates(_ctx: Any, _params: Any) -> dict[str, Any]:
    template = {"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"}
    return {"resourceTemplates": [{**template, "description": "Conformance: a template"}], **CACHE}


async def _read_resource(_ctx: Any, params: Any) -> dict[str, Any]:
    uri = str(params.uri)
    if uri in RESOURCES:
        mime, said = RESOURCES[uri]
        body = {"blob": png()} if said is None else {"text": said}
        return {"contents": [{"uri": uri, "mimeType": mime, **body}], **CACHE}
    if uri.startswith("test://template/") and uri.endswith("/data"):
        found = uri.removeprefix("test://template/").removesuffix("/data")
        said = orjson.dumps({"id": found, "templateTest": True, "data": f"Data for ID: {found}"}).decode()
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": said}], **CACHE}
    raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})


async def _list_prompts(_ctx: Any, _params: Any) -> dict[str, Any]:
    shown = [
        {
            "name": name,
            "description": f"Conformance: {name}",
            "arguments": [{"name": argument, "description": argument, "required": True} for argument in arguments],
        }
        for name, arguments in PROMPTS.items()
    ]
    return {"prompts": shown, **CACHE}


async def _get_prompt(ctx: Any, params: Any) -> dict[str, Any]:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            return _messages({"type": "text", "text": "This is a simple prompt for testing."})
        case "test_prompt_with_arguments":
            said = f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
            return _messages({"type": "text", "text": said})
        case "test_prompt_with_embedded_resource":
            resource = {"uri": given.get("resourceUri"), "mimeType": "text/plain"}
            resource["text"] = "Embedded resource content for testing."
            ask = {"type": "text", "text": "Please process the embedded resource above."}
            return _messages({"type": "resource", "resource": resource}, ask)
        case "test_prompt_with_image":
            ask = {"type": "text", "text": "Please analyze the image above."}
            return _messages({"type": "image", "data": png(), "mimeType": "image/png"}, ask)
        case "test_input_required_result_prompt":
            return _ask_for_prompt((ctx.params or {}).get("inputResponses") or {})
    raise MCPError(INVALID_PARAMS, f"unknown prompt {params.name}")


def _ask_for_prompt(answers: dict[str, Any]) -> dict[str, Any]:
    if "user_context" in answers:
        return _messages({"type": "text", "text": f"Context: {answers['user_context']['content']['context']}"})
    schema = {"type": "object", "properties": {"context": {"type": "string"}}, "required": ["context"]}
    params = {"message": "What context should the prompt use?", "requestedSchema": schema}
    request = {"method": "elicitation/create", "params": params}
    return {"resultType": "input_required", "inputRequests": {"user_context": request}}


def _messages(*contents: dict[str, Any]) -> dict[str, Any]:
    return {"resultType": "complete", "messages": [{"role": "user", "content": content} for content in contents]}

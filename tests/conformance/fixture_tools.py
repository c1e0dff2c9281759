"""The tools that the conformance suite calls by name, as an MCP server of their own.

It stands behind the fleet like any other server: run this file for the stdio server of a node, or
hand `make_server()` to a fleet in this process. What cannot pass through a fleet (log messages to
the client, changes of the front's own lists) is in `fixture_app.py`. The names and texts are the
suite's: `conformance list --server`, the scenarios' descriptions.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import struct
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS

STATE_KEY = b"conformance fixture: not a secret"
JSON_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Given:
    """What came with a call."""

    arguments: dict[str, Any]
    answers: dict[str, Any]
    state: str | None
    capabilities: dict[str, Any]
    progress: Callable[[float, float], Awaitable[None]]


Body = Callable[[Given], Awaitable[dict[str, Any]]]


@dataclass
class Tool:
    """A tool and its definition."""

    body: Body
    properties: dict[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    task_support: str | None = None
    schema: dict[str, Any] | None = None

    def definition(self, name: str) -> dict[str, Any]:
        """As tools/list shows it."""
        schema = self.schema or {"type": "object", "properties": self.properties, "required": list(self.required)}
        shown: dict[str, Any] = {"name": name, "description": f"Conformance: {name}", "inputSchema": schema}
        if self.task_support is not None:
            shown["_meta"] = {"mcpfleet/taskSupport": self.task_support}
        return shown


def png() -> str:
    """One red pixel."""
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (
            (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(b"\x00\xff\x00\x00")),
            (b"IEND", b""),
        )
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def wav() -> str:
    """A silent WAV file."""
    samples = b"\x00\x00" * 8
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16,
                       b"data", len(samples))  # fmt: skip
    return base64.b64encode(head + samples).decode()


def text(said: str) -> dict[str, Any]:
    """A result of one text."""
    return {"content": [{"type": "text", "text": said}]}


def elicit(message: str, **properties: object) -> dict[str, Any]:
    """An elicitation that requires every property."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def sample(prompt: str, max_tokens: int = 100) -> dict[str, Any]:
    """A sampling request."""
    message = {"role": "user", "content": {"type": "text", "text": prompt}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": max_tokens}}


def needs(requests: dict[str, Any], state: str | None = None) -> dict[str, Any]:
    """An InputRequiredResult."""
    result: dict[str, Any] = {"resultType": "input_required", "inputRequests": requests}
    if state is not None:
        result["requestState"] = sign(state)
    return result


def sign(state: str) -> str:
    """A state that a client cannot change."""
    return f"{state}.{hmac.digest(STATE_KEY, state.encode(), hashlib.sha256).hex()}"


def opened(state: str | None) -> str:
    """The signed state, or a refusal."""
    said = (state or "").rpartition(".")[0]
    if not hmac.compare_digest(sign(said), state or ""):
        raise MCPError(INVALID_PARAMS, "requestState is not one that this server gave")
    return said


STRING: dict[str, Any] = {"type": "string"}
NAME = {"name": STRING}


async def _simple_text(_: Given) -> dict[str, Any]:
    return text("This is a simple text response for testing.")


def media(kind: str, data: str, mime: str) -> Body:
    """A tool that answers with one picture or sound."""

    async def body(_: Given) -> dict[str, Any]:
        return {"content": [{"type": kind, "data": data, "mimeType": mime}]}

    return body


async def _embedded(_: Given) -> dict[str, Any]:
    resource = {"uri": "test://embedded-resource", "mimeType": "text/plain"}
    return {
        "content": [{"type": "resource", "resource": {**resource, "text": "This is an embedded resource content."}}]
    }


async def _mixed(_: Given) -> dict[str, Any]:
    resource = {"uri": "test://mixed-content-resource", "mimeType": "application/json"}
    said = {"type": "text", "text": "Multiple content types test:"}
    picture = {"type": "image", "data": png(), "mimeType": "image/png"}
    return {"content": [said, picture, {"type": "resource", "resource": {**resource, "text": '{"test":"data"}'}}]}


async def _failing(_: Given) -> dict[str, Any]:
    return {**text("This tool intentionally returns an error for testing"), "isError": True}


async def _with_progress(given: Given) -> dict[str, Any]:
    for done in (0, 50, 100):
        await given.progress(done, 100)
        await asyncio.sleep(0.15)  # a node passes on ten a second of one call
    return text("progress reported")


async def _sampling(given: Given) -> dict[str, Any]:
    answer = given.answers.get("sample")
    if answer is None:
        return needs({"sample": sample(given.arguments["prompt"])})
    return text(f"LLM response: {answer['content']['text']}")


def asking(requests: dict[str, Any], prefix: str) -> Body:
    """A tool that asks once and repeats the answer."""

    async def body(given: Given) -> dict[str, Any]:
        (key,) = requests
        answer = given.answers.get(key)
        if not isinstance(answer, dict):
            return needs(requests)
        return text(f"{prefix}: action={answer.get('action')}, content={json.dumps(answer.get('content'))}")

    return body


async def _elicitation(given: Given) -> dict[str, Any]:
    fields = {key: {"type": "string", "description": f"User's {key}"} for key in ("username", "email")}
    return await asking({"user": elicit(given.arguments["message"], **fields)}, "User response")(given)


DEFAULTS = elicit(
    "Please review the defaults",
    name={"type": "string", "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)
OPTIONS = ["option1", "option2", "option3"]
ENUMS = elicit(
    "Please choose",
    untitledSingle={"type": "string", "enum": OPTIONS},
    titledSingle={
        "type": "string",
        "oneOf": [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second"), 1)],
    },
    legacyEnum={"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
    untitledMulti={"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    titledMulti={
        "type": "array",
        "items": {
            "anyOf": [
                {"const": f"value{n}", "title": f"{word} Choice"} for n, word in enumerate(("First", "Second"), 1)
            ]
        },
    },
)


async def _ask_name(given: Given) -> dict[str, Any]:
    answer = given.answers.get("user_name")
    if not isinstance(answer, dict):
        return needs({"user_name": elicit("What is your name?", **NAME)})
    return text(f"Hello, {answer['content']['name']}!")


async def _ask_capital(given: Given) -> dict[str, Any]:
    answer = given.answers.get("capital_question")
    if answer is None:
        return needs({"capital_question": sample("What is the capital of France?")})
    return text(answer["content"]["text"])


async def _ask_roots(given: Given) -> dict[str, Any]:
    answer = given.answers.get("client_roots")
    if answer is None:
        return needs({"client_roots": {"method": "roots/list", "params": {}}})
    return text("roots: " + ", ".join(root["uri"] for root in answer["roots"]))


async def _with_state(given: Given) -> dict[str, Any]:
    if "confirm" not in given.answers:
        return needs({"confirm": elicit("Please confirm", ok={"type": "boolean"})}, "waiting")
    return text(f"state-ok: {opened(given.state)}")


async def _many_inputs(given: Given) -> dict[str, Any]:
    wanted = {
        "user_name": elicit("What is your name?", **NAME),
        "greeting": sample("Generate a greeting", 50),
        "client_roots": {"method": "roots/list", "params": {}},
    }
    if not wanted.keys() <= given.answers.keys():
        return needs(wanted, "many")
    return text(f"all of {', '.join(wanted)} for {opened(given.state)}")


async def _many_rounds(given: Given) -> dict[str, Any]:
    said = opened(given.state) if given.state is not None else "start"
    if said == "start":
        return needs({"step1": elicit("Step 1: What is your name?", **NAME)}, "one")
    if said == "one":
        name = given.answers["step1"]["content"]["name"]
        return needs({"step2": elicit("Step 2: What is your favorite color?", color=STRING)}, f"two {name}")
    return text(f"{said.split(' ', 1)[1]} likes {given.answers['step2']['content']['color']}")


async def _by_capability(given: Given) -> dict[str, Any]:
    if given.answers:
        return text("done")
    offers = {
        "elicitation": ("name", elicit("What is your name?", **NAME)),
        "sampling": ("greeting", sample("Generate a greeting")),
    }
    return needs({key: request for kind, (key, request) in offers.items() if kind in given.capabilities})


async def _confirm_delete(given: Given) -> dict[str, Any]:
    if "confirm" not in given.answers:
        return needs({"confirm": elicit(f"Delete {given.arguments.get('filename')}?", confirm={"type": "boolean"})})
    return text("deleted")


async def _multi_input(given: Given) -> dict[str, Any]:
    wanted = {"first": elicit("First?", **NAME), "second": elicit("Second?", **NAME)}
    return text("both given") if wanted.keys() <= given.answers.keys() else needs(wanted)


async def _with_task(given: Given) -> dict[str, Any]:
    """Asks at once; with the answer it takes longer than the front waits before it makes a task."""
    answer = given.answers.get("user_name")
    if answer is None:
        return needs({"user_name": elicit("What is your name?", **NAME)})
    await asyncio.sleep(1.5)
    return text(f"done for {answer['content']['name']}")


async def _greet(given: Given) -> dict[str, Any]:
    return text(f"Hello, {given.arguments['name']}!")


async def _slow_compute(given: Given) -> dict[str, Any]:
    await asyncio.sleep(given.arguments["seconds"])
    return text(f"computed {given.arguments.get('label', '')}")


async def _protocol_error_job(_: Given) -> dict[str, Any]:
    raise MCPError(INTERNAL_ERROR, "the job broke down")


HEADER = {"region": {"type": "string", "x-mcp-header": "Region"}, "query": STRING}
SECONDS = {"seconds": {"type": "number"}, "label": STRING}

TOOLS: dict[str, Tool] = {
    "test_simple_text": Tool(_simple_text),
    "test_image_content": Tool(media("image", png(), "image/png")),
    "test_audio_content": Tool(media("audio", wav(), "audio/wav")),
    "test_embedded_resource": Tool(_embedded),
    "test_multiple_content_types": Tool(_mixed),
    "test_error_handling": Tool(_failing),
    "test_tool_with_progress": Tool(_with_progress),
    "test_sampling": Tool(_sampling, {"prompt": STRING}, ("prompt",)),
    "test_elicitation": Tool(_elicitation, {"message": STRING}, ("message",)),
    "test_elicitation_sep1034_defaults": Tool(asking({"defaults": DEFAULTS}, "Elicitation completed")),
    "test_elicitation_sep1330_enums": Tool(asking({"enums": ENUMS}, "Elicitation completed")),
    "json_schema_2020_12_tool": Tool(_simple_text, schema=JSON_SCHEMA),
    "test_x_mcp_header": Tool(_simple_text, HEADER),
    "test_reconnection": Tool(_simple_text),
    "test_missing_capability": Tool(_ask_capital),
    "test_streaming_elicitation": Tool(_ask_name),
    "test_input_required_result_elicitation": Tool(_ask_name),
    "test_input_required_result_sampling": Tool(_ask_capital),
    "test_input_required_result_list_roots": Tool(_ask_roots),
    "test_input_required_result_request_state": Tool(_with_state),
    "test_input_required_result_multiple_inputs": Tool(_many_inputs),
    "test_input_required_result_multi_round": Tool(_many_rounds),
    "test_input_required_result_tampered_state": Tool(_with_state),
    "test_input_required_result_capabilities": Tool(_by_capability),
    "greet": Tool(_greet, {"name": STRING}, ("name",)),
    "slow_compute": Tool(_slow_compute, SECONDS, ("seconds",)),
    "failing_job": Tool(_failing, task_support="required"),
    "protocol_error_job": Tool(_protocol_error_job, task_support="required"),
    "confirm_delete": Tool(_confirm_delete, {"filename": STRING}, task_support="required"),
    "multi_input": Tool(_multi_input, task_support="required"),
    "test_tool_with_task": Tool(_with_task, task_support="optional"),
}


async def _list(_ctx: Any, _params: Any) -> dict[str, Any]:
    tools = [tool.definition(name) for name, tool in TOOLS.items()]
    return {"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"}


async def _call(ctx: Any, params: Any) -> dict[str, Any]:
    tool = TOOLS.get(params.name)
    if tool is None:
        raise MCPError(INVALID_PARAMS, f"unknown tool {params.name}")
    raw = ctx.params or {}
    capabilities = ctx.session.client_capabilities
    given = Given(
        arguments=raw.get("arguments") or {},
        answers=raw.get("inputResponses") or {},
        state=raw.get("requestState"),
        capabilities=capabilities.model_dump(exclude_none=True) if capabilities else {},
        progress=ctx.session.report_progress,
    )
    return {"resultType": "complete", **await tool.body(given)}


def make_server() -> Server[Any]:
    """The server, without a transport."""
    return Server("fixture", version="1", on_list_tools=_list, on_call_tool=_call)  # type: ignore[arg-type]


if __name__ == "__main__":
    from tasks.mcp_stdio import serve_stdio

    asyncio.run(serve_stdio(make_server()))

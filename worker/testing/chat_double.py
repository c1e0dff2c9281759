"""A double of the chat completions API: scripted answers, and every way in which the real ones fail.

Speaks the public protocol to whatever client comes: parts of text, reasoning and tool calls, a usage part or
none, `[DONE]`. Keeps no conversation: which step of the script is next is read from the request, so it may be
asked again, and a resumed session goes on. Source: the API's public reference, and what GLM, vLLM and llama.cpp
add to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS = 1000, 400, 50
"""Of every answer: known, so that sums can be checked."""
ENDLESS_PARTS = 40
PIECE_CHARS = 7
"""Of a part: words and the JSON of arguments come torn."""


@dataclass(frozen=True, slots=True)
class Use:
    """The model wants a tool used."""

    name: str
    arguments: str
    """As it says them: JSON, where it is a good one."""
    id: str | None = None


def use(name: str, **given: Any) -> Use:  # noqa: ANN401 - a tool's arguments
    """A good call."""
    return Use(name, json.dumps(given), f"call_{name}")


@dataclass(frozen=True, slots=True)
class Step:
    """One answer of the model."""

    text: str = ""
    calls: tuple[Use, ...] = ()
    reasoning: str = ""
    finish: str | None = None
    """None: what fits the answer."""


@dataclass(slots=True)
class Trouble:
    """What is wrong with one answer."""

    status: int = 200
    """Not 200: that error, in the API's form."""
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None
    """`error.code`: a word of OpenAI's, a number of GLM's."""
    message: str = "the double says so"
    hangs: bool = False
    """Never answers."""
    stalls: bool = False
    """Begins to answer and says nothing more."""
    garbage: str | None = None
    """Said in the middle, as the data of an event."""
    breaks: bool = False
    """The connection ends in the middle."""
    ends_early: bool = False
    """The answer ends in the middle, in good order: no `finish_reason`, no `[DONE]`."""
    error_inside: bool = False
    """200, and then an event with an error."""
    endless: bool = False
    """One event that ends only so that who waits for it does not fill the machine."""
    says_nothing: bool = False
    """A stream of no events; unless it is to be streamed, the error `code`, as llama-cpp-python, or an answer."""
    is_page: bool = False
    """200, and a page for people: the wrong address."""


class ChatDouble:
    """An ASGI application. `script[n]` is the answer to a request that has n answers in it already."""

    def __init__(self, script: Sequence[Step], *, tells_usage: bool = True, models: Sequence[str] = ("glm-5",)) -> None:
        self.script = list(script)
        self.tells_usage = tells_usage
        self.models = list(models)
        self.troubles: list[Trouble] = []
        """Each is used for one request, in order; then all is well."""
        self.always: Trouble | None = None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.is_streaming = asyncio.Event()
        """Some answer has begun."""
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._completions, methods=["POST"]),
                Route("/v1/models", self._models, methods=["GET"]),
            ]
        )

    def results(self) -> list[str]:
        """What tools answered, as the model was told in the last request."""
        messages = self.requests[-1]["messages"] if self.requests else []
        return [message["content"] for message in messages if message["role"] == "tool"]

    async def _models(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        fault = self._fault()
        if fault.hangs:
            await asyncio.Event().wait()
        if fault.status != HTTPStatus.OK:
            return _error(fault)
        if fault.is_page:
            return _page()
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "double"} for name in self.models]
        return JSONResponse({"object": "list", "data": data})

    async def _completions(self, request: Request) -> Response:
        asked = await request.json()
        self.requests.append(asked)
        self.headers.append(dict(request.headers))
        fault = self._fault()
        if fault.hangs:
            self.is_streaming.set()
            await asyncio.Event().wait()
        if fault.status != HTTPStatus.OK:
            return _error(fault)
        if fault.is_page:
            return _page()
        if fault.says_nothing:
            if asked.get("stream"):
                return Response(media_type="text/event-stream")
            return _answer() if fault.code is None else _error(Trouble(400, message=fault.message, code=fault.code))
        if wrong := _wrong(asked):
            return _error(Trouble(400, message=wrong))
        return StreamingResponse(self._streamed(asked, self._step(asked), fault), media_type="text/event-stream")

    def _fault(self) -> Trouble:
        return self.always or (self.troubles.pop(0) if self.troubles else Trouble())

    def _step(self, asked: dict[str, Any]) -> Step:
        done = sum(message["role"] == "assistant" for message in asked["messages"])
        return self.script[done] if done < len(self.script) else Step("there is nothing left to do")

    async def _streamed(self, asked: dict[str, Any], step: Step, fault: Trouble) -> AsyncIterator[bytes]:
        model = asked["model"]
        yield _part(model, {"role": "assistant", "content": ""})
        self.is_streaming.set()
        deltas = list(_deltas(step))
        if fault != Trouble():
            for delta in deltas[:1]:
                yield _part(model, delta)
            async for said in _broken(fault):
                yield said
            return
        for delta in deltas:
            yield _part(model, delta)
        yield _part(model, {}, finish=step.finish or ("tool_calls" if step.calls else "stop"))
        if self.tells_usage and asked.get("stream_options", {}).get("include_usage"):
            yield _event(_chunk(model) | {"choices": [], "usage": usage()})
        yield b"data: [DONE]\n\n"


def _answer() -> Response:
    message = {"role": "assistant", "content": "o"}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    said = {"id": "1", "object": "chat.completion", "created": 0, "model": "glm-5", "choices": [choice]}
    return JSONResponse(said | {"usage": usage()})


def usage() -> dict[str, Any]:
    """Of every answer."""
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS,
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }


async def _broken(fault: Trouble) -> AsyncIterator[bytes]:
    """The middle of an answer that comes to nothing."""
    if fault.stalls:
        await asyncio.Event().wait()
    if fault.garbage is not None:
        yield f"data: {fault.garbage}\n\n".encode()
    for _ in range(ENDLESS_PARTS if fault.endless else 0):
        yield b"data: " + b"x" * 1_000_000
        await asyncio.sleep(0)
    if fault.error_inside:
        yield _event({"error": {"message": fault.message, "type": "server_error", "code": fault.code}})
    if fault.breaks:
        raise ConnectionResetError("the double says so")


def _deltas(step: Step) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"reasoning_content": piece} for piece in _torn(step.reasoning)]
    deltas += [{"content": piece} for piece in _torn(step.text)]
    for index, call in enumerate(step.calls):
        first, *others = _torn(call.arguments) or [""]
        function = {"name": call.name, "arguments": first}
        named = {} if call.id is None else {"id": f"{call.id}_{index}"}
        deltas.append({"tool_calls": [{"index": index, "type": "function", "function": function} | named]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in others]
    return deltas


def _wrong(asked: dict[str, Any]) -> str | None:
    """What the real API refuses too: a tool's call without its answer, an answer without its call."""
    waiting: list[str] = []
    for message in asked["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return "a message of role 'tool' answers no call before it"
            waiting.remove(message["tool_call_id"])
        elif waiting:
            return f"these calls have no answer: {waiting}"
        waiting += [call["id"] for call in message.get("tool_calls") or ()]
    return f"these calls have no answer: {waiting}" if waiting else None


def _torn(text: str) -> list[str]:
    return [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]


def _chunk(model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-double", "object": "chat.completion.chunk", "created": 0, "model": model}


def _part(model: str, delta: dict[str, Any], *, finish: str | None = None) -> bytes:
    return _event(_chunk(model) | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _event(said: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(said)}\n\n".encode()


def _page() -> Response:
    return Response("<html><body>It works!</body></html>", media_type="text/html")


def _error(fault: Trouble) -> JSONResponse:
    error = {"message": fault.message, "type": "invalid_request_error", "param": None, "code": fault.code}
    return JSONResponse({"error": error}, fault.status, fault.headers)

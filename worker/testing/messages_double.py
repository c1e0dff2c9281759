"""A double of the Anthropic Messages API: scripted answers, and every way in which the real one fails.

Speaks the public protocol (streaming and not) to whatever client comes; keeps no conversation: which step
of the script is next is read from the request, so it may be asked again, and a resumed session goes on.
Source: the API's public reference, streaming events and errors.
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

INPUT_TOKENS, OUTPUT_TOKENS = 1000, 50
"""Of every answer: known, so that sums can be checked."""
LOOK_EVERY_S = 0.02


def text(said: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": said}


def use(name: str, **given: Any) -> dict[str, Any]:  # noqa: ANN401 - a tool's arguments
    """The model wants a tool used."""
    return {"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": given}


@dataclass(slots=True)
class Trouble:
    """What is wrong with one answer."""

    status: int = 200
    """Not 200: that error, in the API's form."""
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "the double says so"
    hangs: bool = False
    """Never answers."""
    stalls: bool = False
    """Begins to answer and says nothing more."""
    garbage: bool = False
    """What it says is no JSON."""
    breaks: bool = False
    """The connection ends in the middle."""


class MessagesDouble:
    """An ASGI application. `script[n]` is the answer to a request that has n answers in it already."""

    def __init__(self, script: Sequence[Sequence[dict[str, Any]]]) -> None:
        self.script = [list(step) for step in script]
        self.troubles: list[Trouble] = []
        """Each is used for one request, in order; then all is well."""
        self.always: Trouble | None = None
        self.at_step: dict[int, Trouble] = {}
        """Used for every request for that step, while it stands here."""
        self.holds: set[int] = set()
        """Steps whose answer does not come while they stand here."""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.app = Starlette(
            routes=[
                Route("/v1/messages", self._messages, methods=["POST"]),
                Route("/v1/messages/count_tokens", self._count, methods=["POST"]),
            ]
        )

    def results(self) -> list[str]:
        """What tools answered, as the model was told in the last request."""
        blocks = [
            block
            for message in (self.requests[-1]["messages"] if self.requests else [])
            for block in (message["content"] if isinstance(message["content"], list) else ())
            if block.get("type") == "tool_result"
        ]
        return [json.dumps(block.get("content")) for block in blocks]

    async def _count(self, request: Request) -> Response:
        await request.json()
        return JSONResponse({"input_tokens": INPUT_TOKENS})

    async def _messages(self, request: Request) -> Response:
        asked = await request.json()
        self.requests.append(asked)
        self.headers.append(dict(request.headers))
        of_step = self.at_step.get(_done(asked)) if asked.get("tools") else None
        fault = self.always or of_step or (self.troubles.pop(0) if self.troubles else Trouble())
        if fault.hangs:
            await asyncio.Event().wait()
        while asked.get("tools") and _done(asked) in self.holds:  # noqa: ASYNC110 - a set that a test changes
            await asyncio.sleep(LOOK_EVERY_S)
        if fault.status != HTTPStatus.OK:
            kind = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
            error = {"type": kind.get(fault.status, "api_error"), "message": fault.message}
            return JSONResponse({"type": "error", "error": error}, fault.status, fault.headers)
        blocks = self._step(asked)
        message = _message(asked["model"], len(self.requests))
        if asked.get("stream"):
            return StreamingResponse(_streamed(message, blocks, fault), media_type="text/event-stream")
        return JSONResponse(message | {"content": blocks, "stop_reason": _stop(blocks)})

    def _step(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        if not asked.get("tools"):
            return [text("ok")]  # a side question of the runtime: a title, a summary
        done = _done(asked)
        return self.script[done] if done < len(self.script) else [text("there is nothing left to do")]


def _done(asked: dict[str, Any]) -> int:
    return sum(message["role"] == "assistant" for message in asked["messages"])


def _message(model: str, number: int) -> dict[str, Any]:
    """Claude Code takes two answers of one id for parts of the same."""
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _stop(blocks: Sequence[dict[str, Any]]) -> str:
    return "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"


async def _streamed(message: dict[str, Any], blocks: Sequence[dict[str, Any]], fault: Trouble) -> AsyncIterator[bytes]:
    yield _event("message_start", message=message)
    if fault.stalls:
        await asyncio.Event().wait()
    if fault.garbage:
        yield b"event: content_block_start\ndata: {not json\n\n"
        return
    if fault.breaks:
        raise ConnectionResetError("the double says so")
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            empty, delta = text(""), {"type": "text_delta", "text": block["text"]}
        else:
            empty = block | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield _event("content_block_start", index=index, content_block=empty)
        yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    delta = {"stop_reason": _stop(blocks), "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage={"output_tokens": OUTPUT_TOKENS})
    yield _event("message_stop")


def _event(kind: str, **fields: Any) -> bytes:  # noqa: ANN401 - as the API says them
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

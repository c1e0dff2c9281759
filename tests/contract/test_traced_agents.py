"""A run of an agent in its trace: each request to the model is a span below the call, with tokens and no words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tasks.clock import SystemClock
from tasks.tracing import Span, Trace
from tests.contract.chat_node import glm
from worker.grants import Caller
from worker.sidecars.guard_line import borrower_of
from worker.testing.chat_double import COMPLETION_TOKENS, PROMPT_TOKENS, ChatDouble, Step, use
from worker.upstreams.errors import permanent
from worker.upstreams.traced import CallTracer
from worker.upstreams.upstream import Ask, OnRequest

ABOVE = Trace("ab" * 16, "cd" * 8, is_sampled=True)
WAIT_S = 90.0


class Kept:
    """Spans as they are put."""

    ratio = 1.0

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def put(self, span: Span) -> None:
        self.spans.append(span)

    def put_later(self, count: int, make: Callable[[], Iterable[Span]]) -> None:
        raise AssertionError(count)

    def lost(self, count: int) -> None:
        raise AssertionError(count)


async def test_each_request_to_the_model_is_a_span(tmp_path: Path) -> None:
    """Below the span of the run's call; the prompt, the answers and the tools' arguments are in none."""
    kept, asked = Kept(), list[Ask]()
    double = ChatDouble([Step("I look first.", (use("list_files", path="."),)), Step("Nothing is there.")])
    async with glm(tmp_path, double) as server:

        async def run(here: Trace, on_request: OnRequest) -> str:
            ask = Ask("inv-1", here, None, lambda *_: None, caller=Caller("me", "default"), on_request=on_request)
            asked.append(ask)
            return await server.call("run", {"prompt": "do it"}, ask)

        async with asyncio.timeout(WAIT_S):
            await CallTracer(kept, SystemClock()).call("glm.run", ABOVE, run)
    *chats, call = kept.spans
    assert (call.name, call.parent_id, call.trace_id) == ("tools/call run", ABOVE.span_id, ABOVE.trace_id)
    assert [(one.name, one.parent_id) for one in chats] == [("chat glm-5", call.span_id)] * 2
    for one in chats:
        assert one.attributes["gen_ai.usage.output_tokens"] == COMPLETION_TOKENS
        assert one.attributes["gen_ai.usage.input_tokens"] == PROMPT_TOKENS
        assert call.start_s <= one.start_s < one.end_s <= call.end_s
    assert borrower_of(asked[0]).trace == asked[0].trace, "what it borrows is called below it"
    assert not any(word in repr(kept.spans) for word in ("do it", "I look first", "list_files"))


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        ('{"isError":false,"content":[]}', None),
        ('{"content":[{"type":"text","text":"\\"isError\\":true"}]}', None),
        ('{"isError":true,"content":[]}', "tool_error"),
        (permanent("refused", "the password is x"), "refused"),
        (TimeoutError(), "cancelled"),
    ],
)
async def test_how_a_call_ended_is_a_word(outcome: str | BaseException, error: str | None) -> None:
    """Of a list that is known, never the error's own text; and the error goes on as it was."""
    kept = Kept()

    async def run(_here: Trace, _on_request: OnRequest) -> str:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    tracer = CallTracer(kept, SystemClock())
    if isinstance(outcome, BaseException):
        with pytest.raises(type(outcome)):
            await tracer.call("a.b", ABOVE, run)
    else:
        assert await tracer.call("a.b", ABOVE, run) == outcome
    [span] = kept.spans
    assert span.error == error
    assert "password" not in repr(span)

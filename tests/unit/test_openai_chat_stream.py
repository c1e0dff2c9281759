"""One answer from its parts, as the servers that there are send them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.sidecars.openai_chat_stream import Garbage, Gathering, ToolCall, tokens
from worker.sidecars.sidecar import Usage


def call(arguments: str, **more: Any) -> dict[str, Any]:
    """A part with a piece of a tool's call."""
    name = {"name": more.pop("name")} if "name" in more else {}
    said = more | {"function": {"arguments": arguments} | name}
    return {"choices": [{"delta": {"tool_calls": [said]}}]}


CALLS = {
    "by index": [
        call("{", index=0, id="a", name="read"),
        call("{", index=1, id="b", name="list"),
        call("}", index=0),
        call("}", index=1),
    ],
    "all numbered 0": [
        call("{", index=0, id="a", name="read"),
        call("}", index=0),
        call("{", index=0, id="b", name="list"),
        call("}", index=0),
    ],
    "id in every part": [
        call("{", index=0, id="a", name="read"),
        call("}", index=0, id="a"),
        call("{}", index=1, id="b", name="list"),
    ],
    "whole, without an index": [call("{}", id="a", name="read"), call("{}", id="b", name="list")],
}


@pytest.mark.parametrize("parts", CALLS.values(), ids=CALLS)
def test_tool_calls_are_put_together_however_they_are_numbered(parts: list[dict[str, Any]]) -> None:
    """Servers differ in indexes and ids; the calls are the same."""
    gathering = Gathering("glm-5")
    for part in parts:
        gathering.feed(part)
    assert gathering.answer(0).calls == (ToolCall("a", "read", "{}"), ToolCall("b", "list", "{}"))


def test_a_call_without_an_id_gets_one() -> None:
    """Its answer has to name it."""
    gathering = Gathering("glm-5")
    gathering.feed(call('{"a": 1}', index=0, name="read"))
    assert gathering.answer(0).calls == (ToolCall("call_0", "read", '{"a": 1}'),)


def test_reasoning_has_two_names() -> None:
    """GLM's and vLLM's."""
    gathering = Gathering("glm-5")
    gathering.feed({"choices": [{"delta": {"reasoning_content": "a"}}]})
    gathering.feed({"choices": [{"delta": {"reasoning": "b", "content": None}}]})
    assert gathering.answer(0).reasoning == "ab"


def test_usage_is_the_servers_or_marked_as_ours() -> None:
    """An empty usage is none; what was cached is counted once."""
    gathering = Gathering("glm-5")
    gathering.feed({"choices": [{"delta": {"content": "12345"}}], "usage": None})
    gathering.feed({"choices": [], "usage": {}})
    assert gathering.answer(40).usage == Usage(input=10, output=2, is_estimated=True)
    details = {"cached_tokens": 30}
    gathering.feed({"usage": {"prompt_tokens": 40, "completion_tokens": 3, "prompt_tokens_details": details}})
    assert gathering.answer(40).usage == Usage(input=10, output=3, cache_read=30)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "tool_calls", "function", "index", "id", "usage", "model"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(JSON)
def test_no_part_breaks_more_than_its_answer(part: Any) -> None:
    """Whatever a server sends is a part or Garbage, never a defect."""
    gathering = Gathering("glm-5")
    try:
        gathering.feed(part)
    except Garbage:
        return
    assert gathering.answer(1).usage.output >= 0


@given(JSON)
def test_no_choice_breaks_more_than_its_answer(delta: Any) -> None:
    """The same, deeper in."""
    gathering = Gathering("glm-5")
    try:
        gathering.feed({"choices": [{"delta": {"tool_calls": delta, "content": delta}, "finish_reason": delta}]})
    except Garbage:
        return
    assert all(isinstance(each.arguments, str) for each in gathering.answer(1).calls)


def test_a_little_is_not_nothing() -> None:
    """Rounded up: a budget is not escaped in small steps."""
    assert [tokens(size) for size in (0, 1, 4, 5)] == [0, 1, 1, 2]

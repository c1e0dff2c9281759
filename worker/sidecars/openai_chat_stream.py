"""One answer of a chat model, put together from the parts that it streams. Pure.

Source: the public reference of the OpenAI chat API, `chat.completion.chunk`; what other servers do otherwise:
`reasoning_content` (GLM, DeepSeek, llama.cpp) and `reasoning` (vLLM), tool calls without an index or an id, no
`usage`. Parts are taken as plain JSON: the library does not check them, so nothing in them is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.sidecars.sidecar import Usage

BYTES_PER_TOKEN = 4
"""English text and code: about four characters; Chinese: three bytes a character, about 1.3 tokens for two."""
ANSWER_MAX_CHARS = 8_000_000
CALLS_MAX = 128


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model wants a tool used."""

    id: str
    name: str
    arguments: str
    """As it came: meant to be JSON."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer."""

    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]
    finish: str
    """`stop`, `tool_calls`, `length`, …"""
    usage: Usage
    model: str


@dataclass(frozen=True, slots=True)
class Part:
    """What one part added; both empty where it was nothing to show."""

    text: str = ""
    reasoning: str = ""


class Garbage(ValueError):
    """A part that is no part of a chat completion."""


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Gathering:
    """Of one answer."""

    def __init__(self, model: str) -> None:
        self.finish = ""
        self._model = model
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._usage: Usage | None = None
        self._chars = 0

    def feed(self, chunk: object) -> Part:
        """The next part.

        Raises:
            Garbage: it is none, or there is no end of them.
        """
        if not isinstance(chunk, Mapping):
            raise Garbage(f"a part of the answer is no object: {str(chunk)[:100]!r}")
        usage = chunk.get("usage")
        if isinstance(usage, Mapping) and isinstance(usage.get("completion_tokens"), int):
            self._usage = usage_of_chat(usage)
        choices = chunk.get("choices")
        if choices is None:
            choices = []
        if not isinstance(choices, Sequence) or isinstance(choices, str):
            raise Garbage("a part of the answer has no list of choices")
        if not choices:
            return Part()
        choice = choices[0]
        if not isinstance(choice, Mapping) or not isinstance(choice.get("delta") or {}, Mapping):
            raise Garbage("a choice has no delta")
        if isinstance(choice.get("finish_reason"), str):
            self.finish = choice["finish_reason"]
        if isinstance(chunk.get("model"), str) and chunk["model"]:
            self._model = chunk["model"]
        return self._delta(choice.get("delta") or {})

    def answer(self, asked_bytes: int) -> Answer:
        """All of it; counted by ourselves where the server did not."""
        calls = tuple(
            ToolCall(call.id or f"call_{number}", call.name, "".join(call.arguments))
            for number, call in enumerate(self._calls)
        )
        usage = self._usage if self._usage is not None else self.estimated(asked_bytes)
        return Answer("".join(self._text), "".join(self._reasoning), calls, self.finish, usage, self._model)

    def estimated(self, asked_bytes: int) -> Usage:
        """Roughly what it has cost so far."""
        parts = [*self._text, *self._reasoning]
        parts += [part for call in self._calls for part in (call.name, *call.arguments)]
        said_bytes = sum(len(part.encode("utf-8", "replace")) for part in parts)
        return Usage(input=tokens(asked_bytes), output=tokens(said_bytes), is_estimated=True)

    def used(self, asked_bytes: int) -> Usage:
        """Of an answer that broke off: what the server said, or else our own count."""
        return self._usage if self._usage is not None else self.estimated(asked_bytes)

    def _delta(self, delta: Mapping[str, Any]) -> Part:
        text = _text(delta, "content")
        reasoning = _text(delta, "reasoning_content") or _text(delta, "reasoning")
        self._text.append(text)
        self._reasoning.append(reasoning)
        self._count(len(text) + len(reasoning))
        calls = delta.get("tool_calls") or []
        if not isinstance(calls, list):
            raise Garbage("the tool calls are no list")
        for number, said in enumerate(calls):
            self._call(said, number)
        return Part(text, reasoning)

    def _call(self, said: object, number: int) -> None:
        if not isinstance(said, Mapping) or not isinstance(said.get("function") or {}, Mapping):
            raise Garbage("a tool call is no object")
        function = said.get("function") or {}
        call = self._meant(said, number)
        call.name += _text(function, "name")
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments is not None else ""
        call.arguments.append(text)
        self._count(len(text))

    def _meant(self, said: Mapping[str, Any], number: int) -> _Call:
        """By its index; a new id at an old index begins another one, as some servers number all of them 0."""
        index = said["index"] if isinstance(said.get("index"), int) else number
        named = _text(said, "id")
        call = self._by_index.get(index)
        if call is None or (named and call.id and named != call.id):
            if len(self._calls) >= CALLS_MAX:
                raise Garbage(f"more than {CALLS_MAX} tool calls in one answer")
            call = self._by_index[index] = _Call()
            self._calls.append(call)
        call.id = call.id or named
        return call

    def _count(self, chars: int) -> None:
        self._chars += chars
        if self._chars > ANSWER_MAX_CHARS:
            raise Garbage(f"an answer of more than {ANSWER_MAX_CHARS} characters")


def usage_of_chat(said: Mapping[str, Any]) -> Usage:
    """The provider's `usage`. `prompt_tokens` has what was read from the cache in it."""
    details = said.get("prompt_tokens_details")
    cached = _tokens(details, "cached_tokens") if isinstance(details, Mapping) else 0
    asked = _tokens(said, "prompt_tokens")
    return Usage(input=max(0, asked - cached), output=_tokens(said, "completion_tokens"), cache_read=min(cached, asked))


def tokens(size_bytes: int) -> int:
    """Roughly; never none of something."""
    return -(-size_bytes // BYTES_PER_TOKEN)


def _tokens(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    return value if isinstance(value, str) else ""

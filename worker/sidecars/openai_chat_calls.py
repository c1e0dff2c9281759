"""What the tools `chat`, `generate_code` and `models` of a backend do: one request, no agent.

Failures are values (`Trouble`). Refuses to change a file unless a workspace is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.sidecars.bill import Bill, loop_s
from worker.sidecars.openai_chat_backend import Ask, ChatBackend, ChatEndpoint, Listener, Message
from worker.sidecars.openai_chat_faults import Trouble
from worker.sidecars.openai_chat_schema import answer_of, wanted_json
from worker.sidecars.openai_chat_stream import Answer
from worker.sidecars.sidecar import Fault, Usage
from worker.workspaces import sandbox
from worker.workspaces.tree import Tree

TRIES = 2
"""Answers that do not fit are asked for again once."""
FILES_MAX = 200
PATH_MAX_CHARS = 500
_ROLES = frozenset({"system", "user", "assistant"})
_CODER = (
    "You write code. Give whole files, by paths relative to the project's folder. What is to be said goes in notes."
)
CODE_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "files": {
            "type": "array",
            "maxItems": FILES_MAX,
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "minLength": 1, "maxLength": PATH_MAX_CHARS},
                    "content": {"type": "string"},
                },
                "required": ["path", "content"],
                "additionalProperties": False,
            },
        },
        "notes": {"type": "string"},
    },
    "required": ["files", "notes"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Chatted:
    """What a model said."""

    text: str
    reasoning: str
    finish: str
    """`length`: it was cut off."""
    model: str
    usage: Usage
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class CodeFile:
    """One file that a model wrote."""

    path: str
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Generated:
    """Files, and where asked, written."""

    files: tuple[CodeFile, ...]
    notes: str
    model: str
    usage: Usage
    cost_usd: float | None
    applied: tuple[str, ...] = ()
    """Paths that were written."""
    refused: tuple[str, ...] = ()
    """Why others were not."""


async def chat(
    endpoint: ChatEndpoint,
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    extra_body: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    bill: Bill | None = None,
) -> Chatted | Trouble:
    """One answer to a prompt, or to messages of `role` and `content`. What it costs is put on `bill`."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(each) for each in prompt]
    if not messages or any(
        each.get("role") not in _ROLES or not isinstance(each.get("content"), str) for each in messages
    ):
        said = f"messages have a role ({', '.join(sorted(_ROLES))}) and a content that is text; there is at least one"
        return Trouble(Fault.REFUSED, said)
    heard = _Billed(listener or Listener(), bill or Bill(), endpoint.backend, model)
    answer = await endpoint.ask(_asked(endpoint, messages, model, extra_body), heard)
    if isinstance(answer, Trouble):
        return answer
    heard.answered(answer)
    usage, cost_usd = heard.bill.usage, heard.bill.cost_usd
    return Chatted(answer.text, answer.reasoning, answer.finish, answer.model, usage, cost_usd)


async def generate_code(
    endpoint: ChatEndpoint,
    prompt: str,
    *,
    model: str | None = None,
    workspace: Path | None = None,
    extra_body: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    bill: Bill | None = None,
) -> Generated | Trouble:
    """Files that fit `CODE_SCHEMA`; written into `workspace` where one is given, all that may be.

    An answer that does not fit is asked for again once. What it costs is put on `bill`.
    """
    messages: list[Message] = [
        {"role": "system", "content": f"{_CODER}\n{wanted_json(CODE_SCHEMA)}"},
        {"role": "user", "content": prompt},
    ]
    heard, why = _Billed(listener or Listener(), bill or Bill(), endpoint.backend, model), ""
    for _ in range(TRIES):
        answer = await endpoint.ask(_asked(endpoint, messages, model, extra_body), heard)
        if isinstance(answer, Trouble):
            return answer
        heard.answered(answer)
        found = answer_of(answer.text, CODE_SCHEMA)
        why = "it was cut off at its longest" if answer.finish == "length" else found.why_not or ""
        if not why:
            return await _generated(found.value, answer, heard.bill, workspace)
        messages += [
            {"role": "assistant", "content": answer.text},
            {"role": "user", "content": f"Your answer is of no use: {why}. Answer again, with JSON alone."},
        ]
    said = f"the model's answer is of no use, also when asked again: {why}; ask for less, or another model"
    return Trouble(Fault.PROTOCOL, said)


async def models(endpoint: ChatEndpoint) -> tuple[str, ...] | Trouble:
    """The names that the endpoint knows."""
    return await endpoint.models()


class _Billed(Listener):
    """Passes on what is said, and puts on the bill what answers cost, broken ones too."""

    def __init__(self, heard: Listener, bill: Bill, backend: ChatBackend, model: str | None) -> None:
        self.bill, self._prices, self._asked = bill, backend.prices, model or backend.model
        self._asked_s = loop_s()
        self.part, self.again = heard.part, heard.again  # type: ignore[method-assign]

    def lost(self, usage: Usage) -> None:
        self._count(usage, "")

    def answered(self, answer: Answer) -> None:
        """A whole one."""
        self._count(answer.usage, answer.model)

    def _count(self, usage: Usage, answered: str) -> None:
        model, price = self._prices.billed(answered, self._asked)
        now_s = loop_s()
        self.bill.add(model, usage, None if price is None else price.of(usage), now_s - self._asked_s)
        self._asked_s = now_s


async def _generated(said: Mapping[str, Any], answer: Answer, bill: Bill, workspace: Path | None) -> Generated:
    files = tuple(CodeFile(each["path"], each["content"]) for each in said["files"])
    applied: list[str] = []
    refused: list[str] = []
    if workspace is not None:
        tree = Tree(workspace, inside=sandbox.WORKSPACE)
        for file in files:
            why = await asyncio.to_thread(tree.write, file.path, file.content)
            if why is None:
                applied.append(file.path)
            else:
                refused.append(why.why)
    spent = (bill.usage, bill.cost_usd)
    return Generated(files, said["notes"], answer.model, *spent, tuple(applied), tuple(refused))


def _asked(
    endpoint: ChatEndpoint, messages: Sequence[Message], model: str | None, extra_body: Mapping[str, Any] | None
) -> Ask:
    return Ask(tuple(messages), model or endpoint.backend.model, extra_body=extra_body or {})

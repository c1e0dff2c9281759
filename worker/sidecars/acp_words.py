"""What an ACP agent says in the fleet's words: its updates as events, its last word as a Result.

Owns what is heard during one prompt. Refuses to talk to anybody. Agents are of many makers: what is of no known
form is passed over.
Source: Agent Client Protocol v1, prompt turn and session updates.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from typing import Any

import orjson

from tasks.approval import ARGUMENTS_MAX_BYTES
from worker.sidecars.acp_permissions import Policy, Tool, tool_of
from worker.sidecars.sidecar import ASK, Ending, Event, Fault, Said, Thought, ToolBegan, ToolEnded

ABOUT_CHARS = 200
SAID_CHARS = 500
TEXT_MAX_CHARS = 1_000_000
"""Of one message; what follows is not kept."""
USES_MAX = 10_000
"""Of tools, in one run; others are neither told nor asked for."""
NAME_MAX_CHARS = 200
"""Of a tool call's id; a longer one is known by its hash."""
INPUTS_MAX = 32
"""Of tools, that are kept until it is asked whether they may be used."""
UNSHOWN = b"no JSON"
"""In place of an input's mark: it is like no other."""
_TELLING = ("command", "filePath", "file_path", "filepath", "path", "pattern", "url", "description", "prompt")
_TOO_LONG = ("prompt is too long", "context_length", "context length", "context window", "maximum context")
_BY_STATUS = {
    401: (Fault.AUTH, "the credential was refused (401): give the node a valid one"),
    403: (Fault.REFUSED, "the provider does not allow this (403)"),
    429: (Fault.QUOTA, "the credential has nothing left for now (429)"),
    529: (Fault.OVERLOADED, "the provider is overloaded (529)"),
    502: (Fault.UNREACHABLE, "the model's endpoint does not answer"),
}
_BY_STOP = {
    "max_tokens": (Ending.FAILED, Fault.CONTEXT, "the model said all that it can at once: give it a smaller task"),
    "max_turn_requests": (Ending.LIMIT, Fault.TURNS, "the agent used all of the requests that it allows itself"),
    "refusal": (Ending.FAILED, Fault.REFUSED, "the agent refused to do this: say it in another way"),
    "cancelled": (Ending.CANCELLED, None, "the run was cancelled"),
}


@dataclass(slots=True)
class _Use:
    """Of one tool, once."""

    tool: Tool
    about: str = ""
    is_told: bool = False
    is_over: bool = False
    was_allowed: bool | None = None
    """None: it was not asked for."""
    shown: set[bytes] = field(default_factory=set)
    """The inputs that its questions showed, as `_mark` has them."""
    heard: bytes = b""
    """Its input as last heard, as `_mark` has it; empty: none was."""
    was_asked: bool = False
    is_other: bool = False
    """Since it was asked for it had an input that was not shown."""


class Hearing:
    """All that was heard of one run.

    `is_listening` only while the prompt is answered: a session that is loaded is told from its beginning first.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._text: list[str] = []
        self._size = 0
        self._message: object = None
        self._uses: dict[str, _Use] = {}
        self._inputs: OrderedDict[str, object] = OrderedDict()
        self._cost_before_usd: float | None = None
        self._cost_usd: float | None = None
        self.is_listening = False
        self.last = ""
        """The last whole thing that the agent said."""
        self.overstepped: str | None = None
        """A tool that it used and might not, and what was wrong with that."""

    @property
    def has_open_tools(self) -> bool:
        """Something of its own may take its time."""
        return any(not use.is_over for use in self._uses.values())

    def cost_usd(self, *, is_new: bool) -> float | None:
        """Of this run, as the agent counts: it tells the sum of the session, which for a new one is the run's."""
        before = 0.0 if is_new else self._cost_before_usd
        if self._cost_usd is None or before is None:
            return None
        return max(0.0, self._cost_usd - before)

    def events(self, update: Mapping[str, Any]) -> Iterator[Event]:
        """Of one `session/update`."""
        kind = update.get("sessionUpdate")
        if kind == "usage_update":
            self._cost(update.get("cost"))
        elif not self.is_listening:
            return
        elif kind == "agent_message_chunk":
            yield from self._said(update)
        elif kind == "agent_thought_chunk":
            yield Thought(_text(update.get("content")))
        elif kind in ("tool_call", "tool_call_update"):
            yield from self._used(update)

    def asked(self, call: Mapping[str, Any]) -> tuple[Tool, list[Event]]:
        """Which tool a question is about, and what it tells. What it shows is noted now, not when it is answered."""
        name = name_of(call)
        if self._is_too_many(name):
            return tool_of(call), []
        use = self._use(name, call)
        shown = [_json(each) for each in (call.get("rawInput"), self.input_of(name)) if each]
        use.shown.update(_mark(text) for text in shown if text is not None)
        use.was_asked = True
        use.is_other = bool(use.heard) and use.heard not in use.shown
        return use.tool, list(self._told(name, use))

    def input_of(self, name: str) -> object:
        """Of that tool call, as last heard; None where nothing was, or too much."""
        return self._inputs.get(name)

    def answered(self, name: str, *, is_allowed: bool) -> None:
        """To a question about it. One no of several is a no."""
        use = self._uses.get(name)
        if use is None:  # of too many
            return
        use.was_allowed = is_allowed and use.was_allowed is not False

    def whole(self) -> Iterator[Event]:
        """What it said since, if that is something."""
        text, self._text, self._size = "".join(self._text), [], 0
        if text.strip():
            self.last = text
            yield Said(text)

    def _said(self, update: Mapping[str, Any]) -> Iterator[Event]:
        text = _text(update.get("content"))
        if update.get("messageId") != self._message:
            yield from self.whole()
            self._message = update.get("messageId")
        if self._size < TEXT_MAX_CHARS:
            self._text.append(text)
            self._size += len(text)
        yield Said(text, is_part=True)

    def _used(self, update: Mapping[str, Any]) -> Iterator[Event]:
        name, status = name_of(update), update.get("status")
        is_new = name not in self._uses
        if self._is_too_many(name):
            return
        use = self._use(name, update)
        self._keep(name, use, update.get("rawInput"))
        if is_new:
            yield from self.whole()
        elif not use.about and status == "in_progress":
            use.about = use.tool.called
        if use.about or status in ("in_progress", "completed", "failed"):
            yield from self._told(name, use)
        if status in ("completed", "failed") and not use.is_over:
            use.is_over = True
            wrong = self._wrong(use) if status == "completed" else None
            self.overstepped = self.overstepped or wrong
            self._inputs.pop(name, None)
            use.shown.clear()
            yield ToolEnded(name, status == "failed")
        else:
            yield Thought("")  # a sign of life

    def _is_too_many(self, name: str) -> bool:
        """It is another one than those that are kept account of."""
        if name in self._uses or len(self._uses) < USES_MAX:
            return False
        if self._policy.mode == ASK:
            self.overstepped = f"more than {USES_MAX} tools, which nobody can keep account of"
        return True

    def _wrong(self, use: _Use) -> str | None:
        """With a tool that was used."""
        called = use.tool.called
        if self._policy.denies(use.tool):
            return f"{called}, which the call denied"
        if use.was_allowed is None:
            return None if self._policy.may_not_ask(use.tool) else f"{called} without asking"
        if not self._policy.leaves_open(use.tool):
            return None
        if not use.was_allowed:
            return f"{called}, which was denied"
        if use.is_other:
            return f"{called} with another input than it had asked for"
        return None

    def _keep(self, name: str, use: _Use, given: object) -> None:
        """What a person may be asked about; of a size that a person can be shown."""
        if given:
            text = _json(given)
            use.heard = _mark(text)
            use.is_other = use.is_other or (use.was_asked and use.heard not in use.shown)
            is_shown = text is not None and len(text) <= ARGUMENTS_MAX_BYTES
            self._inputs[name] = given if is_shown else None
            self._inputs.move_to_end(name)
            if len(self._inputs) > INPUTS_MAX:
                self._inputs.popitem(last=False)

    def _use(self, name: str, said: Mapping[str, Any]) -> _Use:
        use = self._uses.get(name)
        if use is None:
            use = self._uses[name] = _Use(tool_of(said))
        else:
            use.tool = tool_of(said, use.tool)
        use.about = _about(said, use.tool) or use.about
        return use

    def _told(self, name: str, use: _Use) -> Iterator[Event]:
        if not use.is_told:
            use.is_told = True
            yield ToolBegan(name, use.tool.called, use.about)

    def _cost(self, cost: object) -> None:
        amount = cost.get("amount") if isinstance(cost, dict) and cost.get("currency") == "USD" else None
        if not isinstance(amount, int | float):
            return
        if self.is_listening:
            self._cost_usd = float(amount)
        else:
            self._cost_before_usd = float(amount)


def ended(stop: object, said: str) -> tuple[Ending, Fault | None, str]:
    """How the prompt ended, by its `stopReason`."""
    if stop == "end_turn":
        return Ending.SUCCEEDED, None, said
    if isinstance(stop, str) and stop in _BY_STOP:
        return _BY_STOP[stop]
    return (
        Ending.FAILED,
        Fault.PROTOCOL,
        f"the agent stopped for a reason that nobody knows: {str(stop)[:SAID_CHARS]!r}",
    )


def refused(said: str, status: int | None) -> tuple[Ending, Fault, str]:
    """The agent gave up. `status`: what the model's endpoint answered last, None where all was well."""
    if "mcpfleet: the run's money is spent" in said:
        return Ending.LIMIT, Fault.MONEY, "the run's money is spent"
    if "mcpfleet: the run's turns are used" in said:
        return Ending.LIMIT, Fault.TURNS, "the run used all of its turns"
    if any(word in said.lower() for word in _TOO_LONG):
        why = "this is more than the model reads at once: give it less, or begin a new session"
        return Ending.FAILED, Fault.CONTEXT, f"{why}: {said[:SAID_CHARS]}"
    fault, why = _fault_of(status)
    return Ending.FAILED, fault, f"{why}: {said[:SAID_CHARS]}"


def _fault_of(status: int | None) -> tuple[Fault, str]:
    if status is None:
        return Fault.PROTOCOL, "the agent gave up"
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Fault.PROVIDER_FAILED, f"the provider failed ({status})"
    return Fault.REFUSED, f"the provider refused the request ({status})"


def name_of(said: Mapping[str, Any]) -> str:
    """The id of the tool call that is spoken of."""
    name = str(said.get("toolCallId"))
    return name if len(name) <= NAME_MAX_CHARS else sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _mark(text: bytes | None) -> bytes:
    """Tells inputs apart without keeping them."""
    return UNSHOWN if text is None else sha256(text).digest()


def _json(given: object) -> bytes | None:
    """None: it can be read, but not written (too deep, half a character, a number too large), and so not shown."""
    try:
        return orjson.dumps(given, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return None


def _text(content: object) -> str:
    text = content.get("text") if isinstance(content, dict) else None
    return text if isinstance(text, str) else ""


def _about(said: Mapping[str, Any], tool: Tool) -> str:
    """For a line on a screen: its argument that tells most, or else its title, or a path."""
    raw = said.get("rawInput")
    given: dict[str, Any] = raw if isinstance(raw, dict) else {}
    for name in _TELLING:
        if isinstance(given.get(name), str):
            return str(given[name])[:ABOUT_CHARS]
    title = said.get("title")
    if isinstance(title, str) and title != tool.name:
        return title[:ABOUT_CHARS]
    places = said.get("locations") if said.get("status") != "pending" else None  # before it knows what, it says where
    first = places[0] if isinstance(places, list) and places else None
    return str(first.get("path", ""))[:ABOUT_CHARS] if isinstance(first, dict) else ""

"""What an ACP agent says in the fleet's words: its updates as events, its last word as a Result.

Owns what is heard during one prompt. Refuses to talk to anybody. Agents are of many makers: what is of no known
form is passed over.
Source: Agent Client Protocol v1, prompt turn and session updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from worker.sidecars.acp_permissions import Policy, Tool, tool_of
from worker.sidecars.sidecar import Ending, Event, Fault, Said, Thought, ToolBegan, ToolEnded

ABOUT_CHARS = 200
SAID_CHARS = 500
TEXT_MAX_CHARS = 1_000_000
"""Of one message; what follows is not kept."""
USES_MAX = 10_000
"""Of tools, in one run; others are not told."""
_TELLING = ("command", "filePath", "file_path", "filepath", "path", "pattern", "url", "description", "prompt")
_TOO_LONG = ("prompt is too long", "context_length", "context length", "context window", "maximum context")
_BY_STATUS = {
    401: (Fault.AUTH, "the credential was refused (401): give the node a valid one"),
    403: (Fault.REFUSED, "the provider does not allow this (403)"),
    429: (Fault.QUOTA, "the credential has nothing left for now (429)"),
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
        self._cost_before_usd: float | None = None
        self._cost_usd: float | None = None
        self.is_listening = False
        self.last = ""
        """The last whole thing that the agent said."""
        self.overstepped: str | None = None
        """A tool that the caller denied, and that it used without a question."""

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
        """Which tool a question is about, and what it tells."""
        use = self._use(str(call.get("toolCallId")), call)
        return use.tool, list(self._told(str(call.get("toolCallId")), use))

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
        name, status = str(update.get("toolCallId")), update.get("status")
        is_new = name not in self._uses
        if is_new and len(self._uses) >= USES_MAX:
            return
        use = self._use(name, update)
        if is_new:
            yield from self.whole()
        elif not use.about and status == "in_progress":
            use.about = use.tool.called
        if use.about or status in ("in_progress", "completed", "failed"):
            yield from self._told(name, use)
        if status in ("completed", "failed") and not use.is_over:
            use.is_over = True
            if status == "completed" and self._policy.denies(use.tool):
                self.overstepped = use.tool.called
            yield ToolEnded(name, status == "failed")
        else:
            yield Thought("")  # a sign of life

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
        return Fault.OVERLOADED, f"the provider failed or is overloaded ({status})"
    return Fault.REFUSED, f"the provider refused the request ({status})"


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

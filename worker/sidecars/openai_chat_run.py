"""One run: the model is asked, its tools are used, and again, until it answers or a limit is reached.

Owns the conversation, its books and its limits. The money's limit is kept by not asking any more, and by asking
for no longer an answer than what is left can pay: our own count of what is asked is rough, so a run may end a
little above it. Refuses a limit in money where the model has no price.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker.sidecars import openai_chat_session
from worker.sidecars.bill import Bill, loop_s
from worker.sidecars.openai_chat_backend import RESERVE_TOKENS, Ask, ChatEndpoint, Listener, Message
from worker.sidecars.openai_chat_faults import Trouble
from worker.sidecars.openai_chat_schema import answer_of, wanted_json
from worker.sidecars.openai_chat_stream import Answer, Part, ToolCall, tokens
from worker.sidecars.openai_chat_tools import READING, Told, WorkspaceTools, about, arguments
from worker.sidecars.sidecar import (
    AgentTask,
    Began,
    Ending,
    Event,
    Fault,
    Result,
    Retrying,
    Said,
    SessionMode,
    Thought,
    ToolBegan,
    ToolEnded,
    Usage,
)
from worker.sidecars.spend import PER_TOKENS
from worker.workspaces.tree import NotThere

SYSTEM = (
    "You are a coding agent. You work in one folder, the workspace, with the tools that you are given; paths are "
    "relative to it. Look before you change, change as little as the task needs, and check what you did where a "
    "tool can. When the task is done, answer with what you did, in a few lines."
)
PLAN = "plan"
"""The permission mode in which nothing is changed."""
_CUT = "the answer was cut off at its longest: ask for less, or raise the backend's output_tokens"


class ChatRun(Listener):
    """The run. What the endpoint says while it answers is passed on as events."""

    def __init__(self, task: AgentTask, endpoint: ChatEndpoint, bwrap: str | None) -> None:
        self._task, self._endpoint = task, endpoint
        self._model = task.model or endpoint.backend.model
        self._price = endpoint.backend.prices.of(self._model)
        self._tools = WorkspaceTools(
            *(task.workspace, task.home, bwrap),
            only=_given(task),
            read_only=task.read_only,
            entering=task.entering,
            reach=task.reach,
        )
        self._tell: Callable[[Event], None] = lambda _: None
        self._bill, self._turns = task.bill or Bill(), 0
        self._denials: dict[str, None] = {}
        self._asked_s = 0.0
        self._messages: list[Message] = []
        self._session: str | None = None

    async def result(self, tell: Callable[[Event], None]) -> Result:
        """All of it. Where this is cancelled, `cancelled` is the Result."""
        self._tell = tell
        return self._may_begin() or await self._converse()

    def cancelled(self) -> Result:
        """With what it has used until now."""
        return self._ended(Ending.CANCELLED, "the run was cancelled; what it did until then is in the workspace")

    def part(self, part: Part) -> None:
        """Passed on as it comes."""
        if part.reasoning:
            self._tell(Thought(part.reasoning))
        if part.text:
            self._tell(Said(part.text, is_part=True))

    def again(self, attempt: int, after_s: float, trouble: Trouble) -> None:
        """Passed on."""
        self._tell(Retrying(attempt, after_s, trouble.status))

    def lost(self, usage: Usage) -> None:
        """Paid for all the same."""
        self._count(usage, "")

    def _may_begin(self) -> Result | None:
        """Why not, or None."""
        if not self._endpoint.backend.can_call_tools:
            said = f"{self._model} cannot use tools: call `chat` or `generate_code`, or run an agent on another model"
            return self._failed(Fault.REFUSED, said)
        if self._task.limits.cost_usd and self._price is None:
            said = f"the run has a limit in money and {self._model} has no price: give the backend one, or no limit"
            return self._failed(Fault.SETUP, said)
        return self._recalled()

    def _recalled(self) -> Result | None:
        """Where the session left off; why not, where there is none."""
        task, mode = self._task, self._task.session.mode
        system = SYSTEM
        if task.output_schema is not None:
            system = f"{SYSTEM}\n{wanted_json(task.output_schema)}"
        self._messages = [{"role": "system", "content": system}]
        if mode is not SessionMode.NEW:
            kept = openai_chat_session.load(task.home, task.session.id)
            if isinstance(kept, NotThere):
                return self._failed(Fault.SESSION, kept.why)
            self._messages += [message for message in kept if message["role"] != "system"]
        self._session = task.session.id if mode is SessionMode.RESUME else task.run
        self._messages.append({"role": "user", "content": _plain(task.prompt)})
        servers = dict.fromkeys(task.servers, "not supported by this sidecar")
        self._tell(Began(self._session or "", self._model, servers))
        return None

    async def _converse(self) -> Result:
        is_asked_again = False
        while True:
            ask = self._next()
            if isinstance(ask, Result):
                return ask
            self._turns += 1
            self._asked_s = loop_s()
            answer = await self._endpoint.ask(ask, self)
            if isinstance(answer, Trouble):
                return self._troubled(answer)
            self._count(answer.usage, answer.model)
            if answer.text:
                self._tell(Said(answer.text))
            self._messages.append(self._remembered(answer))
            if answer.calls:
                await self._use(answer)
                self._keep()
                continue
            self._keep()
            done = self._done(answer, ask, is_last=is_asked_again)
            if done is not None:
                return done
            is_asked_again = True

    def _next(self) -> Ask | Result:
        """The next request, or the limit that forbids it."""
        limits, backend = self._task.limits, self._endpoint.backend
        if limits.turns and self._turns >= limits.turns:
            said = f"the run used all of its {limits.turns} turns; give it a smaller task, or more of them"
            return self._ended(Ending.LIMIT, said, Fault.TURNS)
        ask = Ask(self._messages, self._model, self._tools.offered())
        asked = tokens(ask.size_bytes())
        rooms: list[int] = []
        if backend.context_tokens is not None:
            room = backend.context_tokens - asked - RESERVE_TOKENS
            if room <= 0:
                said = (
                    f"about {asked} tokens are more than the {backend.context_tokens} that {self._model} reads at once"
                )
                return self._failed(Fault.CONTEXT, f"{said}: give it less, or begin a new session")
            if backend.output_tokens is not None:
                rooms.append(room)
        if limits.cost_usd and self._price is not None:
            affordable = self._affordable(limits.cost_usd, asked)
            if affordable <= 0:
                return self._no_money()
            if self._price.output:
                rooms.append(affordable)
        return Ask(ask.messages, ask.model, ask.tools, min(rooms, default=None))

    def _affordable(self, limit_usd: float, asked: int) -> int:
        """Tokens of an answer that what is left can pay."""
        assert self._price is not None
        left_usd = limit_usd - self._task.spent_usd - self._bill.known_usd - self._price.of(Usage(input=asked))
        if not self._price.output:
            return 1 if left_usd > 0 else 0
        return int(left_usd * PER_TOKENS / self._price.output)

    async def _use(self, answer: Answer) -> None:
        """Every call gets its answer, one after the other: they may build on each other."""
        for call in answer.calls:  # all at once: until the last has its answer, nothing of this turn is kept
            self._tell(ToolBegan(call.id, call.name, about(call)))
        for call in answer.calls:
            if answer.finish == "length" and call is answer.calls[-1]:
                told = Told(f"not done: {_CUT}", is_error=True)
            else:
                told = await self._permitted(call) or await self._tools.use(call)
            if not self._tools.has(call.name):
                self._denials[call.name] = None
            self._tell(ToolEnded(call.id, told.is_error))
            self._messages.append({"role": "tool", "tool_call_id": call.id, "content": _plain(told.text)})

    async def _permitted(self, call: ToolCall) -> Told | None:
        """Why not, where a person says so; None where it may be used, or is its own fault."""
        task = self._task
        if task.ask is None or call.name in READING.union(task.allowed_tools) or not self._tools.has(call.name):
            return None
        given = arguments(call)
        if given is None:
            return None  # using it says what is wrong with it
        permission = await task.ask(call.name, given)
        return None if permission.is_allowed else Told(f"denied: {permission.reason}", is_error=True)

    def _done(self, answer: Answer, ask: Ask, *, is_last: bool) -> Result | None:
        """The end of the run; None where it is asked once more for an answer that fits."""
        if answer.finish == "length":
            limit = self._task.limits.cost_usd
            if limit and ask.output_tokens and answer.usage.output >= ask.output_tokens:
                return self._no_money(answer.text)
            return self._failed(Fault.CONTEXT, _CUT)
        if self._task.output_schema is None:
            if answer.text.strip():
                return self._ended(Ending.SUCCEEDED, answer.text)
            why = "it says nothing"
        else:
            found = answer_of(answer.text, self._task.output_schema)
            if found.why_not is None:
                return self._ended(Ending.SUCCEEDED, answer.text, structured=found.value)
            why = found.why_not
        if is_last:
            return self._failed(Fault.PROTOCOL, f"the model's answer is of no use, also when asked again: {why}")
        self._messages.append({"role": "user", "content": f"Your answer is of no use: {why}. Answer again."})
        return None

    def _remembered(self, answer: Answer) -> Message:
        message: Message = {"role": "assistant", "content": answer.text}
        if answer.reasoning and self._endpoint.backend.returns_reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in answer.calls
            ]
        return message

    def _keep(self) -> None:
        if self._session is None:
            return
        lost = openai_chat_session.save(self._task.home, self._session, self._messages)
        if lost is not None:  # the run is worth more than going on from it later
            self._session = None

    def _troubled(self, trouble: Trouble) -> Result:
        return self._failed(trouble.fault, trouble.message, retry_after_s=trouble.retry_after_s)

    def _no_money(self, text: str = "") -> Result:
        spent_usd = self._task.spent_usd + (self._cost_usd() or 0.0)
        said = f"the run's money is spent ({spent_usd:.4f} of {self._task.limits.cost_usd:.4f} US dollars)"
        return self._ended(Ending.LIMIT, f"{said}: {text}" if text else said, Fault.MONEY)

    def _failed(self, fault: Fault, text: str, *, retry_after_s: float | None = None) -> Result:
        return self._ended(Ending.FAILED, text, fault, retry_after_s=retry_after_s)

    def _ended(self, ending: Ending, text: str, fault: Fault | None = None, **more: Any) -> Result:  # noqa: ANN401
        return Result(
            ending,
            text,
            fault,
            session_id=self._session,
            turns=self._turns,
            usage=self._bill.usage,
            cost_usd=self._cost_usd(),
            denials=tuple(self._denials),
            **more,
        )

    def _cost_usd(self) -> float | None:
        return self._bill.cost_usd

    def _count(self, usage: Usage, answered: str) -> None:
        model, price = self._endpoint.backend.prices.billed(answered, self._model)
        self._bill.add(model, usage, None if price is None else price.of(usage), loop_s() - self._asked_s)


def _given(task: AgentTask) -> frozenset[str] | None:
    """Names of tools; None for all."""
    every = {"read_file", "list_files", "write_file", "edit_file", "run_command"}
    names = every if task.ask is not None else set(task.allowed_tools) or every
    if task.permission_mode == PLAN:
        names &= READING
    return frozenset(names - set(task.denied_tools))


def _plain(text: str) -> str:
    """Without halves of characters: they cannot be sent."""
    return text.encode("utf-8", "replace").decode()

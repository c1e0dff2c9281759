"""One OpenAI-compatible endpoint: asks it, once more where that may help, and says what came or why nothing did.

Owns the connection and the few short retries; waits that are longer than `retry_most_s` are the fleet's, for they
free the slot. Refuses to know what an agent is. The key is read when it is needed and goes nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from tasks.clock import Clock
from tasks.retry import RetryPolicy, delay_s
from worker.sidecars.openai_chat_faults import Trouble, failures, of_error
from worker.sidecars.openai_chat_stream import Answer, Gathering, Part
from worker.sidecars.sidecar import Fault, Usage
from worker.sidecars.spend import Prices

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream
    from openai.types.chat import ChatCompletionChunk

CONNECT_S = 15.0
MODELS_S = 15.0
"""For a list of names: an endpoint that needs longer has other troubles."""
RESERVE_TOKENS = 256
"""Of the context: our count is rough."""
Message = dict[str, Any]
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ChatBackend:
    """What one endpoint is, and what its model can do."""

    name: str
    """For people and for the tools' names: `glm`."""
    base_url: str
    """With the version: `https://api.z.ai/api/paas/v4`, `http://10.0.0.7:8000/v1`."""
    model: str
    key: Callable[[], str] = field(repr=False)
    """Read for each request; empty where the endpoint wants none."""
    context_tokens: int | None = None
    """What the model reads at once, its own answer included."""
    output_tokens: int | None = None
    """`max_tokens`; None leaves it to the server."""
    prices: Prices = field(default_factory=Prices)
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Beside what we ask: `reasoning_effort`, `thinking`, `chat_template_kwargs`."""
    can_call_tools: bool = True
    returns_reasoning: bool = False
    """Give `reasoning_content` back with the conversation: GLM thinks on from it, DeepSeek refuses it."""
    asks_usage: bool = True
    """Send `stream_options`; off for servers that refuse what they do not know."""
    stall_s: float = 60.0
    """Between two parts of an answer, and before the first."""
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(attempts=3, first_wait_s=1.0, cap_s=8.0))
    retry_most_s: float = 10.0
    """A `Retry-After` that is longer ends the request."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    messages: Sequence[Message] = field(repr=False)
    model: str
    tools: Sequence[Mapping[str, Any]] = ()
    output_tokens: int | None = None
    """Less than the backend's; for what is left of the money."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def size_bytes(self) -> int:
        """Of what the model reads, for counting ourselves."""
        return len(json.dumps([*self.messages, *self.tools], ensure_ascii=False).encode("utf-8", "replace"))


class Listener:
    """What a request says while it runs. This one does not listen."""

    def part(self, part: Part) -> None:
        """A part of the answer."""

    def again(self, attempt: int, after_s: float, trouble: Trouble) -> None:
        """It failed, and is asked again."""

    def lost(self, usage: Usage) -> None:
        """An answer broke off; what it has cost all the same."""


class ChatEndpoint:
    """The endpoint. One for all runs of a node; made where the event loop runs."""

    def __init__(self, backend: ChatBackend, clock: Clock, *, draw: Callable[[], float] = random.random) -> None:
        self.backend, self._clock, self._draw = backend, clock, draw
        self._client: AsyncOpenAI | None = None

    async def ask(self, ask: Ask, listener: Listener | None = None) -> Answer | Trouble:
        """The model's answer; after the last try, why there is none."""
        heard, attempt = listener or Listener(), 0
        while True:
            attempt += 1
            came = await self._once(ask, heard)
            if isinstance(came, Answer):
                return came
            wait_s = self._wait_s(came, attempt)
            if wait_s is None:
                return came
            _log.info("chat_again", backend=self.backend.name, attempt=attempt, why=came.message)
            heard.again(attempt, wait_s, came)
            await asyncio.sleep(wait_s)

    async def models(self) -> tuple[str, ...] | Trouble:
        """Their names, sorted."""
        client = await self._opened()
        try:
            async with asyncio.timeout(MODELS_S):
                page = await client.models.list()
                return tuple(sorted(str(model.id) for model in page.data))
        except (TypeError, AttributeError):  # the library checks nothing: `data` may be anything
            said = f"{self.backend.base_url} answered what is no list of models; check that base_url names such an API"
            return Trouble(Fault.PROTOCOL, said)
        except failures() as error:
            return self._trouble(error, MODELS_S)

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _once(self, ask: Ask, heard: Listener) -> Answer | Trouble:
        asked_bytes = ask.size_bytes()
        gathering = Gathering(ask.model)
        is_begun = False
        try:
            async with contextlib.aclosing(self._chunks(ask)) as chunks:
                async for chunk in chunks:
                    is_begun = True
                    part = gathering.feed(chunk)
                    if part.text or part.reasoning:
                        heard.part(part)
        except asyncio.CancelledError:
            if is_begun:
                heard.lost(gathering.used(asked_bytes))
            raise
        except failures() as error:
            if is_begun:
                heard.lost(gathering.used(asked_bytes))
            return self._trouble(error)
        answer = gathering.answer(asked_bytes)
        if answer.finish in _ENDED_BADLY:
            heard.lost(answer.usage)
            return _ENDED_BADLY[answer.finish]
        if not answer.finish:
            return self._unfinished(heard, answer, is_begun=is_begun)
        return answer

    async def _chunks(self, ask: Ask) -> AsyncGenerator[object, None]:
        """As plain JSON: the library checks nothing, so neither do its types hold."""
        client, words = await self._opened(), self._words(ask)
        stream: AsyncStream[ChatCompletionChunk] = await client.chat.completions.create(**words)
        is_begun, is_stream = False, "event-stream" in stream.response.headers.get("content-type", "")
        async with stream:
            async for chunk in stream:
                is_begun = True
                yield chunk.to_dict(warnings=False) if hasattr(chunk, "to_dict") else chunk
        if is_stream and not is_begun:
            # llama-cpp-python 0.3.36 streams nothing where it refuses, as a prompt that is too long; so asked, it says
            # why. Once more where that fails: it has closed the connection too, which the client may not know yet.
            words.pop("stream_options", None)
            again = client.with_options(max_retries=1)
            answer = await again.chat.completions.create(**words | {"stream": False, "max_tokens": 1})
            said = answer.to_dict(warnings=False)
            yield {"model": said.get("model"), "choices": [], "usage": said.get("usage")}  # of no use, and paid

    def _words(self, ask: Ask) -> dict[str, Any]:
        words: dict[str, Any] = {"model": ask.model, "messages": list(ask.messages), "stream": True}
        if self.backend.asks_usage:
            words["stream_options"] = {"include_usage": True}
        if ask.tools:
            words["tools"] = list(ask.tools)
        limits = [limit for limit in (ask.output_tokens, self.backend.output_tokens) if limit is not None]
        if limits:
            words["max_tokens"] = min(limits)
        extra = dict(self.backend.extra_body) | dict(ask.extra_body)
        if extra:
            words["extra_body"] = extra
        return words

    async def _opened(self) -> AsyncOpenAI:
        if self._client is None:
            self._client = await asyncio.to_thread(self._made)  # half a second of imports
        return self._client

    def _made(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        from worker.sidecars.openai_chat_bound import bound

        async def key() -> str:
            return self.backend.key() or "none"

        timeout = Timeout(self.backend.stall_s, connect=min(CONNECT_S, self.backend.stall_s))
        http = DefaultAsyncHttpxClient(
            base_url=self.backend.base_url, timeout=timeout, event_hooks={"response": [bound]}
        )
        client = AsyncOpenAI(
            base_url=self.backend.base_url, api_key=key, max_retries=0, timeout=timeout, http_client=http
        )
        _ = client.chat.completions, client.models  # imported when first asked for, which is not to be on the loop
        return client

    def _trouble(self, error: Exception, silent_s: float | None = None) -> Trouble:
        stall_s = self.backend.stall_s if silent_s is None else min(silent_s, self.backend.stall_s)
        return of_error(error, self.backend.base_url, stall_s=stall_s, now_s=self._clock.wall_s())

    def _unfinished(self, heard: Listener, answer: Answer, *, is_begun: bool) -> Trouble:
        """It ended in good order, and without an end."""
        url = self.backend.base_url
        if not is_begun:
            said = f"{url} answered without any part of a chat completion; check that base_url names such an API"
            return Trouble(Fault.PROTOCOL, said)
        heard.lost(answer.usage)
        said = f"{url} broke off its answer: call again later, or look at its log"
        return Trouble(Fault.PROTOCOL, said, may_pass=True)

    def _wait_s(self, trouble: Trouble, attempt: int) -> float | None:
        """None where it is not to be asked again."""
        policy = self.backend.retry
        if not trouble.may_pass or attempt >= policy.attempts:
            return None
        if trouble.retry_after_s is not None:
            return trouble.retry_after_s if trouble.retry_after_s <= self.backend.retry_most_s else None
        return delay_s(attempt, policy, self._draw())


_ENDED_BADLY = {
    "content_filter": Trouble(Fault.REFUSED, "the provider holds the content back (content_filter): ask otherwise"),
    "sensitive": Trouble(Fault.REFUSED, "the provider holds the content back (sensitive): ask otherwise"),
    "network_error": Trouble(
        Fault.PROVIDER_FAILED, "the provider broke off its own work (network_error)", may_pass=True
    ),
    "model_context_window_exceeded": Trouble(
        Fault.CONTEXT, "this is more than the model reads at once: give it less, or begin a new session"
    ),
}
"""GLM's own words for how an answer ended, beside the API's."""

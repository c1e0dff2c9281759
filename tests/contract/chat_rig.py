"""The chat sidecar, started, with a double of its API on a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tasks.clock import SystemClock
from tasks.retry import RetryPolicy
from worker.sidecars import openai_chat_session
from worker.sidecars.guard import guarded
from worker.sidecars.openai_chat import OpenAIChat
from worker.sidecars.openai_chat_backend import ChatBackend, ChatEndpoint
from worker.sidecars.sidecar import AgentTask, Event, Result, RunLimits
from worker.sidecars.spend import Price, Prices
from worker.sidecars.transcripts import Transcripts
from worker.testing.chat_double import ChatDouble
from worker.testing.upstreams_kit import served

WAIT_S = 60.0
KEY = "not-a-secret"
PRICES = Prices({"glm-5": Price(input=1.0, output=3.2, cache_read=0.2)})
ONE_ANSWER_USD = (600 * 1.0 + 400 * 0.2 + 50 * 3.2) / 1_000_000
AT_ONCE = RetryPolicy(attempts=3, first_wait_s=0.0, cap_s=0.0)


def backend(url: str, **more: Any) -> ChatBackend:
    """The double's, that is asked again at once."""
    given = {"key": lambda: KEY, "prices": PRICES, "retry": AT_ONCE, "stall_s": 20.0} | more
    return ChatBackend(name="glm", base_url=url, model="glm-5", **given)


@asynccontextmanager
async def endpoint(double: ChatDouble, **more: Any) -> AsyncIterator[ChatEndpoint]:
    """Over a real socket."""
    async with served(double.app) as port:
        made = ChatEndpoint(backend(f"http://127.0.0.1:{port}/v1", **more), SystemClock(), draw=lambda: 0.5)
        try:
            yield made
        finally:
            await made.close()


def chat_of(made: ChatEndpoint, kept: Path) -> OpenAIChat:
    """Not started; its sessions are kept in that folder."""
    return OpenAIChat(made, Transcripts(kept, openai_chat_session.path_of("{}")))


@asynccontextmanager
async def sidecar(double: ChatDouble, **more: Any) -> AsyncIterator[OpenAIChat]:
    """Started."""
    async with contextlib.AsyncExitStack() as stack:
        kept = stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpfleet-chats-"))
        made = await stack.enter_async_context(endpoint(double, **more))
        started = chat_of(made, Path(kept))
        assert (await started.start()).is_ready
        try:
            yield started
        finally:
            await started.close()


def task_in(folder: Path, prompt: str = "mend it", *, run: str = "run-1", **more: Any) -> AgentTask:
    """A run in a workspace below `folder`; the HOME is shared, as one project's is."""
    workspace, home = folder / "workspace", folder / "home"
    workspace.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    limits = more.pop("limits", RunLimits(wall_s=0, silence_s=0))
    return AgentTask(run=run, prompt=prompt, workspace=workspace, home=home, limits=limits, **more)


async def events_of(chat: OpenAIChat, given: AgentTask) -> list[Event]:
    """All of a run, as the node hears it."""
    async with asyncio.timeout(WAIT_S):
        return [event async for event in guarded(chat, given, SystemClock())]


async def result_of(chat: OpenAIChat, given: AgentTask) -> Result:
    """The last event, and no other is a Result."""
    events = await events_of(chat, given)
    assert [isinstance(event, Result) for event in events] == [False] * (len(events) - 1) + [True]
    last = events[-1]
    assert isinstance(last, Result)
    return last

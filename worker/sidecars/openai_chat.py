"""A model behind an OpenAI-compatible endpoint as a sidecar: GLM at its API, vLLM, SGLang, llama.cpp.

Owns which runs there are, and how one is ended. The conversation is `openai_chat_run`, the endpoint
`openai_chat_backend`. The loop runs in the node, which therefore holds the key; what the model may touch is
the run's workspace, and its commands run in a sandbox that has no key, and of the network what its project lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable

import structlog

from tasks.errors import SettingsError
from worker.sidecars import openai_chat_session
from worker.sidecars.openai_chat_backend import ChatEndpoint
from worker.sidecars.openai_chat_faults import Trouble
from worker.sidecars.openai_chat_run import ChatRun
from worker.sidecars.sidecar import AgentTask, Ending, Event, Fault, Health, Result
from worker.sidecars.transcripts import Transcripts
from worker.workspaces import sandbox

_NOT_READY = frozenset({Fault.AUTH, Fault.UNREACHABLE})
"""What a list of models tells of the endpoint; some that work have no such list."""
_log = structlog.get_logger()


class OpenAIChat:
    """The sidecar. The endpoint is closed with it."""

    def __init__(self, endpoint: ChatEndpoint, transcripts: Transcripts) -> None:
        self._endpoint, self._transcripts = endpoint, transcripts
        self._running: dict[str, _Running] = {}
        self._health = Health(is_ready=False, why_not="not started")
        self._bwrap: str | None = None

    async def start(self) -> Health:
        """Ask the endpoint for its models, and find bubblewrap. Asks nothing of a model."""
        try:
            self._bwrap = sandbox.find_bwrap()
        except SettingsError as error:
            _log.warning("chat_without_commands", sidecar=self._endpoint.backend.name, why=str(error))
        found = await self._endpoint.models()
        if isinstance(found, Trouble) and found.fault in _NOT_READY:
            self._health = Health(is_ready=False, why_not=found.message)
            _log.warning("sidecar_not_ready", sidecar=self._endpoint.backend.name, why=found.message)
        else:
            self._health = Health(is_ready=True)
        return self._health

    async def health(self) -> Health:
        """As found at the start."""
        return self._health

    async def run(self, task: AgentTask) -> AsyncGenerator[Event]:
        """See `Sidecar.run`."""
        if not self._health.is_ready:
            why = f"{self._endpoint.backend.name} cannot run here: {self._health.why_not}"
            yield Result(Ending.FAILED, why, Fault.SETUP)
            return
        if task.session.id is not None:
            await asyncio.to_thread(self._put, task.session.id, task)
        running = self._running[task.run] = _Running(ChatRun(task, self._endpoint, self._bwrap))
        try:
            async for event in running.events():
                if isinstance(event, Result) and event.session_id is not None:
                    await asyncio.to_thread(self._transcripts.keep, event.session_id, task)
                yield event
        finally:
            del self._running[task.run]
            await running.end()

    def runtime(self) -> str:
        """See `Portable`: the loop is ours, so the form of what it keeps is all that matters."""
        return f"openai_chat {openai_chat_session.FORMAT}"

    def model_of(self, asked: str | None) -> str | None:
        """The caller's, or the endpoint's."""
        return asked or self._endpoint.backend.model

    def session_now(self, session: str, task: AgentTask) -> str | None:
        """Written as soon as every tool of an answer has ended."""
        return self._transcripts.now(session, task)

    def has_answers(self, transcript: str, tools: Iterable[str]) -> bool:
        """See `Portable`."""
        return openai_chat_session.has_answers(transcript, tools)

    def begins_a_tool(self, transcript: str) -> bool:
        """See `Portable`."""
        return openai_chat_session.begins_a_tool(transcript)

    def _put(self, session: str, task: AgentTask) -> bool:
        if task.brought is not None:
            return self._transcripts.place(session, task.brought, task)
        return self._transcripts.put(session, task)

    async def cancel(self, run: str) -> None:
        """At once: a request is dropped, a command ended."""
        if run in self._running:
            await self._running[run].cancel()

    async def close(self) -> None:
        """End all runs, and the connections."""
        await asyncio.gather(*(running.cancel() for running in list(self._running.values())))
        await self._endpoint.close()


class _Running:
    """A run in a task of its own, so that it can be ended while somebody waits for its events."""

    def __init__(self, run: ChatRun) -> None:
        self._run = run
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._talking: asyncio.Task[None] | None = None

    async def events(self) -> AsyncGenerator[Event]:
        """As they come; the Result is the last."""
        self._talking = asyncio.create_task(self._talk())
        self._talking.add_done_callback(lambda _: self._events.put_nowait(None))  # also where it never began
        while (event := await self._events.get()) is not None:
            yield event
        if self._talking.cancelled():
            yield self._run.cancelled()
        else:
            self._talking.result()  # a defect is told to whoever asked for the run

    async def cancel(self) -> None:
        """Its Result, with what it has used until now, is in the queue after this."""
        await self.end()

    async def end(self) -> None:
        """Nothing of it is left after this."""
        if self._talking is not None and not self._talking.done():
            self._talking.cancel()
            await asyncio.wait({self._talking})

    async def _talk(self) -> None:
        self._events.put_nowait(await self._run.result(self._events.put_nowait))

"""Two thin transports that carry out flows over HTTP: one blocks, one awaits."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from typing import TypeVar

import httpx

from tasks.client.exchange import ANSWER_S, CONNECT_S, Answer, Broken, Flow, Pause, Request, Step
from tasks.client.settings import ClientSettings

T = TypeVar("T")
EVENT_SILENCE_S = 60.0
"""An event stream sends a comment at least this often; past it the connection is dead."""


class Blocking:
    """Runs flows in the calling thread. Threads may share it; a forked child gets a client of its own."""

    def __init__(self, settings: ClientSettings, transport: httpx.BaseTransport | None = None) -> None:
        self._settings, self._transport = settings, transport
        self._clients: dict[int, httpx.Client] = {}

    def run(self, flow: Flow[T]) -> T:
        """The flow's value, or its error."""
        answer: Answer | Broken | None = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as end:
                value: T = end.value
                return value
            answer = self._carry_out(step)

    @property
    def client(self) -> httpx.Client:
        """This process's connection pool: sockets must not be shared across a fork."""
        pid = os.getpid()
        if pid not in self._clients:
            self._clients = {pid: httpx.Client(transport=self._transport, **_how(self._settings))}  # type: ignore[arg-type]
        return self._clients[pid]

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()
        self._clients = {}

    def _carry_out(self, step: Step) -> Answer | Broken | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return _answer(self.client.request(step.method, step.path, **_what(step)))  # type: ignore[arg-type]
        except httpx.TransportError as error:
            return _broken(error)


class Awaiting:
    """Runs flows in the running event loop."""

    def __init__(self, settings: ClientSettings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.client = httpx.AsyncClient(transport=transport, **_how(settings))  # type: ignore[arg-type]

    async def run(self, flow: Flow[T]) -> T:
        """The flow's value, or its error."""
        answer: Answer | Broken | None = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as end:
                value: T = end.value
                return value
            answer = await self._carry_out(step)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()

    async def _carry_out(self, step: Step) -> Answer | Broken | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return _answer(await self.client.request(step.method, step.path, **_what(step)))  # type: ignore[arg-type]
        except httpx.TransportError as error:
            return _broken(error)


def stream_timeout() -> httpx.Timeout:
    """Of an event stream."""
    return httpx.Timeout(EVENT_SILENCE_S, connect=CONNECT_S)


def _how(settings: ClientSettings) -> dict[str, object]:
    return {
        "base_url": settings.url,
        "headers": {"Authorization": f"Bearer {settings.token}"},
        # making a TLS context costs tens of milliseconds, and http:// has no use for one
        "verify": ssl.create_default_context() if settings.url.startswith("https:") else False,
        "trust_env": False,
    }


def _what(request: Request) -> dict[str, object]:
    timeout = httpx.Timeout(ANSWER_S + request.wait_s, connect=CONNECT_S)
    return {"content": request.body, "headers": dict(request.headers), "timeout": timeout}


def _answer(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.content, response.headers)


def _broken(error: httpx.TransportError) -> Broken:
    return Broken(f"{type(error).__name__}: {error}".rstrip(": "))

"""The HTTP API, asked from inside this process: the same operations, with the person's own credential.

The console has no other way to the fleet, so that roles, scopes, tenants, policies, the lockout and the audit log are
the API's. Owns the call and the reading of answers. Refuses to know any operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import orjson
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Scope

from orchestrator.presented import CERTIFICATE_KEY, CERTIFIED_NODE_KEY

M = TypeVar("M", bound=BaseModel)
Query = Mapping[str, str | int | float | Sequence[str] | None]
AT_ONCE_BYTES = 256 * 1024
"""A larger answer is read beside the loop, which the leader's lease needs."""
UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 401, 403, 404
CARRIED = (CERTIFICATE_KEY, CERTIFIED_NODE_KEY, "scheme", "server", "client")
"""Of the person's own request, so that the API sees where they really are."""


class Refused(Exception):
    """The API said no. `detail` is its sentence, for people."""

    def __init__(self, status: int, code: str, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.retry_after_s = status, code, detail, retry_after_s


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


class Inside:
    """The API as one person may use it, during one request of theirs."""

    def __init__(self, app: ASGIApp, outer: Scope, credential: str) -> None:
        """`outer`: the request that the person sent."""
        self._app, self._credential = app, credential
        self._carried = {name: outer[name] for name in CARRIED if name in outer}
        self._host = next((value for name, value in outer["headers"] if name == b"host"), b"")

    async def get(self, path: str, form: type[M], query: Query | None = None) -> M:
        """What an operation answers. Raises Refused."""
        return await _read(form, await self.ask("GET", path, query=query))

    async def get_or_none(self, path: str, form: type[M], query: Query | None = None) -> M | None:
        """The same; None where this person may not see it. Raises Refused."""
        try:
            return await self.get(path, form, query)
        except Refused as refused:
            if refused.status != FORBIDDEN:
                raise
            return None

    async def post(self, path: str, form: type[M], body: Mapping[str, Any] | None = None) -> M:
        """Carry out, and read the answer. Raises Refused."""
        return await _read(form, await self.ask("POST", path, body=body or {}))

    async def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> None:
        """Carry out; the answer does not matter. Raises Refused."""
        await self.ask(method, path, body=body)

    async def ask(
        self, method: str, path: str, *, query: Query | None = None, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """One request. Raises Refused."""
        scope = self._scope(method, path, query, has_body=body is not None)
        text = b"" if body is None else orjson.dumps(body)
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": text, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        whole = b"".join(message.get("body", b"") for message in sent[1:])
        answer = Answer(sent[0]["status"], dict(sent[0]["headers"]), whole)
        if answer.status >= 400:  # noqa: PLR2004
            raise _refused(answer)
        return answer

    async def stream(self, path: str, *, last_seen: str = "") -> AsyncGenerator[bytes, None]:
        """The chunks of an operation that goes on, until it ends or nobody listens. Raises Refused.

        `last_seen`: the id of the last event that was seen; it goes on after that.
        """
        scope = self._scope("GET", path, None, has_body=False)
        if last_seen:
            scope["headers"].append((b"last-event-id", last_seen[:64].encode("latin-1", "replace")))
        chunks: asyncio.Queue[Message | None] = asyncio.Queue(maxsize=16)
        gone = asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self._app(scope, receive, chunks.put)
            finally:
                await chunks.put(None)

        running = asyncio.create_task(run())
        try:
            first = await chunks.get()
            if first is None or first["status"] >= 400:  # noqa: PLR2004
                body = b"" if first is None else ((await chunks.get()) or {}).get("body", b"")
                raise _refused(Answer(500 if first is None else first["status"], {}, body))
            while (message := await chunks.get()) is not None:
                if message.get("body"):
                    yield message["body"]
        finally:
            gone.set()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def _scope(self, method: str, path: str, query: Query | None, *, has_body: bool) -> Scope:
        headers = [(b"authorization", b"Bearer " + self._credential.encode("latin-1", "replace"))]
        headers.append((b"host", self._host))
        if has_body:
            headers.append((b"content-type", b"application/json"))
        said = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": urlencode(said, doseq=True).encode(),
            "headers": headers,
            **self._carried,
        }


async def _read(form: type[M], answer: Answer) -> M:
    if len(answer.body) <= AT_ONCE_BYTES:
        return form.model_validate_json(answer.body)
    return await asyncio.to_thread(form.model_validate_json, answer.body)


def _refused(answer: Answer) -> Refused:
    try:
        form = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        form = {}
    said = answer.headers.get(b"retry-after", b"").decode()
    retry_s = int(said) if said.isdecimal() else None
    return Refused(answer.status, form.get("code", "internal"), form.get("detail", "no reason was given"), retry_s)

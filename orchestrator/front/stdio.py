"""The stdio door: a thin process between a client's pipes and the fleet's MCP endpoint.

Every frame from stdin becomes one POST, every message in the answers one line on stdout. It keeps
no protocol of its own, so both eras, tasks, progress and questions pass as they are, and a client
may probe with `server/discover` and then send `initialize`, as Claude Code does.

A cancelled request is ended by closing its response, which is how the fleet learns of it. Refuses
to run without a token.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import httpx
import orjson
import structlog
from mcp.shared.inbound import encode_header_value, find_invalid_x_mcp_header, mcp_param_headers, x_mcp_header_map
from mcp_types import INTERNAL_ERROR, PARSE_ERROR, PROTOCOL_VERSION_META_KEY

from orchestrator.front.frames import refusal_of

log = structlog.get_logger()

SESSION_HEADER = "Mcp-Session-Id"
NAMES = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""Params that the `Mcp-Name` header repeats. Source: SEP-2243, SEP-2663."""
LINE_BYTES_MAX = 64 * 1024 * 1024
"""One frame; asyncio's default of 64 KiB is less than one picture."""

Write = Callable[[bytes], Awaitable[None]]
Frame = dict[str, Any]


class Bridge:
    """Carries frames. One per client."""

    def __init__(self, http: httpx.AsyncClient, url: str, write: Write) -> None:
        self._http = http
        self._url = url
        self._write = write
        self._session: str | None = None
        self._version: str | None = None
        self._running: dict[str | int, asyncio.Task[None]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._header_maps: dict[str, Mapping[tuple[str, ...], str]] = {}

    async def carry(self, lines: AsyncIterator[bytes]) -> None:
        """Until the lines end; then what still runs is cancelled."""
        try:
            async for line in lines:
                if line.strip():
                    await self._take(line)
        finally:
            running = [*self._running.values(), *([self._listening] if self._listening else [])]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _take(self, line: bytes) -> None:
        try:
            frame = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            await self._say(_error(None, PARSE_ERROR, f"Parse error: {error}"))
            return
        if (refusal := refusal_of(frame)) is not None:
            await self._say(refusal)
            return
        if frame.get("method") == "notifications/cancelled":
            cancelled = (frame.get("params") or {}).get("requestId")
            running = self._running.pop(cancelled, None) if isinstance(cancelled, str | int) else None
            if running is not None:
                running.cancel()
                if self._session is None:
                    return  # the response was closed; there is no session in which to cancel it again
        if frame.get("method") == "initialize":
            await self._post(frame)  # what follows needs the session and the version that this settles
            return
        request_id = frame.get("id")
        task = asyncio.create_task(self._post(frame))
        if "method" in frame and request_id is not None:
            self._running[request_id] = task
            task.add_done_callback(lambda _: self._running.pop(request_id, None))
        else:
            await task

    async def _post(self, frame: Frame) -> None:
        try:
            async with self._http.stream(
                "POST", self._url, content=orjson.dumps(frame), headers=self._headers(frame)
            ) as response:
                await self._answered(frame, response)
        except httpx.HTTPError as error:
            log.warning("fleet_unreachable", url=self._url, error=repr(error))
            await self._failed(frame, f"no orchestrator answers at {self._url} ({error!r}); is the fleet up?")
        except Exception:  # top of a task: one bad answer must not end the client's other calls
            log.exception("frame_lost", method=frame.get("method"))
            await self._failed(frame, f"the answer from {self._url} could not be read")

    async def _answered(self, frame: Frame, response: httpx.Response) -> None:
        self._session = response.headers.get(SESSION_HEADER, self._session)
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            async for message in _events(response):
                await self._hand_on(frame, message)
            return
        body = await response.aread()
        if response.status_code == httpx.codes.ACCEPTED or not body:
            return
        if body.startswith(b'{"jsonrpc"'):
            await self._hand_on(frame, orjson.loads(body))
        else:
            said = body[:500].decode(errors="replace")
            await self._failed(frame, f"{self._url} answered {response.status_code}: {said}")

    async def _hand_on(self, frame: Frame, message: Frame) -> None:
        result = message.get("result")
        if isinstance(result, dict) and message.get("id") == frame.get("id"):
            self._learn(frame, result)
        await self._say(message)

    def _learn(self, frame: Frame, result: Mapping[str, Any]) -> None:
        """What later frames need: the version of the handshake, and which arguments become headers."""
        if frame.get("method") == "initialize":
            self._version = result.get("protocolVersion")
            tells = ((result.get("capabilities") or {}).get("tools") or {}).get("listChanged")
            if tells and self._session is not None and self._listening is None:
                self._listening = asyncio.create_task(self._listen())
        if frame.get("method") == "tools/list":
            for tool in result.get("tools") or ():
                schema = tool.get("inputSchema")
                if find_invalid_x_mcp_header(schema) is None and (annotated := x_mcp_header_map(schema)):
                    self._header_maps[tool["name"]] = annotated

    async def _listen(self) -> None:
        """What the fleet says of itself to a session of the handshake era."""
        headers = {**self._headers({}), "Accept": "text/event-stream"}
        try:
            async with self._http.stream("GET", self._url, headers=headers) as response:
                if response.status_code == httpx.codes.OK:
                    async for message in _events(response):
                        await self._say(message)
        except httpx.HTTPError as error:
            log.info("listening_ended", error=repr(error))

    def _headers(self, frame: Frame) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        params: dict[str, Any] = frame["params"] if isinstance(frame.get("params"), dict) else {}
        said = (params.get("_meta") or {}).get(PROTOCOL_VERSION_META_KEY)
        if not isinstance(said, str):
            if self._version is not None and frame.get("method") != "initialize":
                headers["MCP-Protocol-Version"] = self._version
            return headers | ({SESSION_HEADER: self._session} if self._session else {})
        method = str(frame.get("method"))
        headers |= {"MCP-Protocol-Version": said, "Mcp-Method": method}
        name = params.get(NAMES.get(method, ""))
        if isinstance(name, str):
            headers["Mcp-Name"] = encode_header_value(name)
        if method == "tools/call" and isinstance(name, str) and name in self._header_maps:
            headers |= mcp_param_headers(self._header_maps[name], params.get("arguments") or {})
        return headers

    async def _failed(self, frame: Frame, why: str) -> None:
        if "method" in frame and frame.get("id") is not None:
            await self._say(_error(frame["id"], INTERNAL_ERROR, why))

    async def _say(self, message: Frame) -> None:
        await self._write(orjson.dumps(message) + b"\n")


async def serve(url: str, token: str, *, path: str = "/mcp") -> None:
    """Bridge this process's stdin and stdout to the fleet until stdin ends.

    Args:
        url: the orchestrator's.
        token: a bearer token of the fleet.
        path: of its MCP endpoint.
    """
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    lock = asyncio.Lock()

    async def write(line: bytes) -> None:
        async with lock:
            await asyncio.to_thread(_write_line, line)

    # No read timeout: a call may run for hours, and the fleet pings on a response that takes long.
    timeout = httpx.Timeout(10.0, read=None)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as http:
        await Bridge(http, url.rstrip("/") + path, write).carry(reader)


def _write_line(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


async def _events(response: httpx.Response) -> AsyncIterator[Frame]:
    """The JSON-RPC messages of an event stream. Source: WHATWG HTML, Server-sent events."""
    data: list[str] = []
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            text, data = "\n".join(data), []
            if text.strip():
                yield orjson.loads(text)


def _error(request_id: str | int | None, code: int, message: str) -> Frame:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}

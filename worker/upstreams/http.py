"""The HTTP side of a Streamable HTTP session: what happened below JSON-RPC is told apart, and bounded.

The SDK's transport drops the status and `Retry-After`, and one refused connection ends the whole
session with every call in it. So a transport of ours sits under it and turns each such event into a
JSON-RPC error for the one request that met it, with a `Fault` in its data. Refuses to retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import TracebackType

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client

from tasks.clock import Clock
from tasks.outcome import Failure
from worker.upstreams.egress import Allowed, JudgedBackend, allowed_by
from worker.upstreams.errors import Fault
from worker.upstreams.filling import SecretSource, filled_headers
from worker.upstreams.servers_entries import HttpEntry
from worker.upstreams.upstream import Alarm

CONNECT_S = 10.0
WRITE_S = 30.0
CONNECTIONS_MAX = 256
"""Calls at once on one server, and its event streams."""
KEEPALIVE_S = 3.0
"""Idle connections are dropped before servers drop them (uvicorn and Node: 5 s): a request that meets
a closing connection may or may not have been read."""
FAREWELL_S = 2.0
"""To say that a session is over. A server that is deaf is not waited for."""
LINGER_S, LINGER_CHUNKS = 0.2, 16
"""How long, and how much, a server may take to end a stream after its answer."""
RETRY_AFTER_MAX_S = 3600.0
SLACK_BYTES = 4096
OUTAGES = frozenset({"connection_refused", "connection_lost", "server_busy", "server_unauthorized"})
"""Faults that say nothing about which protocol a server speaks."""


class HttpLink:
    """The transport of one HTTP session. Enter it once."""

    kind = "http"

    def __init__(
        self, entry: HttpEntry, *, alarm: Alarm, limit_bytes: int, clock: Clock, secrets: SecretSource
    ) -> None:
        self._entry, self._limit_bytes, self._secrets = entry, limit_bytes, secrets
        allowed = allowed_by(entry.url, is_private=entry.is_private)
        self._wire = _FaultTransport(alarm=alarm, limit_bytes=limit_bytes, clock=clock, allowed=allowed)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> TransportStreams:
        async with AsyncExitStack() as stack:
            headers = await filled_headers(self._entry, self._secrets)
            await self._wire.open(self._entry.url)
            client = httpx2.AsyncClient(
                headers=headers,
                timeout=httpx2.Timeout(WRITE_S, connect=CONNECT_S, read=None),
                transport=self._wire,
                follow_redirects=False,  # what was judged is this host alone
            )
            await stack.enter_async_context(client)
            limit = self._limit_bytes + SLACK_BYTES
            transport = streamable_http_client(self._entry.url, http_client=client, max_sse_event_size=limit)
            streams = await stack.enter_async_context(transport)
            self._stack = stack.pop_all()
            return streams

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def kill(self) -> None:
        """There is nothing of ours to kill."""

    def outage(self) -> str | None:
        """It was away, busy or refused us at some time of this session."""
        return self._wire.outage

    def why_ended(self, _error: BaseException | None) -> str | None:
        """The last fault below JSON-RPC, if any."""
        return self._wire.last_fault


class _TooLarge(httpx2.StreamError):
    """The body is over the limit; a StreamError, so that the SDK answers this one request with it."""


class _FaultTransport(httpx2.AsyncBaseTransport):
    def __init__(self, *, alarm: Alarm, limit_bytes: int, clock: Clock, allowed: Allowed) -> None:
        self._alarm, self._limit_bytes, self._clock, self._allowed = alarm, limit_bytes, clock, allowed
        self.last_fault: str | None = None
        self.outage: str | None = None

    async def open(self, url: str) -> None:
        """Make the connection pool. Certificates are read in a thread, and only where there is TLS."""
        limits = httpx2.Limits(
            max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX, keepalive_expiry=KEEPALIVE_S
        )
        # The bare context trusts no certificate at all: should it ever be used, it refuses.
        is_tls = url.startswith("https:")
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls = await asyncio.to_thread(httpx2.create_ssl_context) if is_tls else bare
        self._inner = httpx2.AsyncHTTPTransport(limits=limits, verify=tls)
        pool = self._inner._pool  # noqa: SLF001 - httpx has no argument for it; test_ssrf.py fails if this is gone
        pool._network_backend = JudgedBackend(self._allowed, pool._network_backend)  # noqa: SLF001

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":
            return await self._farewell(request)
        if request.method != "POST":
            return await self._inner.handle_async_request(request)
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol) as error:
            self._alarm.down()
            return self._fault(request, Fault("connection_refused", _say(error, "no connection"), Failure.NOT_STARTED))
        except httpx2.TransportError as error:
            self._alarm.changed()
            said = _say(error, "the connection ended during the call")
            return self._fault(request, Fault("connection_lost", said, Failure.MAYBE_STARTED))
        fault = self._judge(request, response)
        if fault is not None:
            await response.aclose()
            return self._fault(request, fault)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        kind = response.headers.get("content-type", "").lower()
        if kind.startswith("application/json"):
            response.stream = _Bounded(response.stream, self._limit_bytes + SLACK_BYTES)
        elif kind.startswith("text/event-stream"):
            response.stream = _ReadToItsEnd(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _farewell(self, request: httpx2.Request) -> httpx2.Response:
        try:
            async with asyncio.timeout(FAREWELL_S):
                return await self._inner.handle_async_request(request)
        except TimeoutError as error:
            raise httpx2.ReadTimeout("no answer to the end of the session", request=request) from error

    def _judge(self, request: httpx2.Request, response: httpx2.Response) -> Fault | None:
        status = response.status_code
        if status < 400:  # noqa: PLR2004 - HTTP's own line
            return None
        is_json = response.headers.get("content-type", "").lower().startswith("application/json")
        match status:
            case 429 | 503:
                wait_s = _retry_after_s(response.headers.get("retry-after"), self._clock.wall_s())
                return Fault("server_busy", f"answered HTTP {status}", Failure.NOT_STARTED, wait_s)
            case 401 | 403:
                what = f"refused us with HTTP {status}; check its headers in the servers file"
                return Fault("server_unauthorized", what, Failure.NOT_STARTED)
            case 404 if MCP_SESSION_ID in request.headers:
                self._alarm.down()
                return Fault("session_gone", "does not know our session any more", Failure.NOT_STARTED)
            case _ if is_json or status == 404:  # noqa: PLR2004
                return None
            case _ if status >= 500:  # noqa: PLR2004
                return Fault("server_error", f"answered HTTP {status}", Failure.MAYBE_STARTED)
            case _:
                return Fault("server_error", f"answered HTTP {status}", Failure.PERMANENT)

    def _fault(self, request: httpx2.Request, fault: Fault) -> httpx2.Response:
        self.last_fault = fault.message
        if fault.code in OUTAGES:
            self.outage = fault.message
        headers = {"content-type": "application/json"}
        return httpx2.Response(502, headers=headers, content=fault.rpc_json(), request=request)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit_bytes: int) -> None:
        self._inner, self._limit_bytes = inner, limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._inner:
                size += len(chunk)
                if size > self._limit_bytes:
                    raise _TooLarge(f"response body exceeded the {self._limit_bytes} byte limit")
                yield chunk
        except httpx2.TransportError as error:
            # As a StreamError the SDK gives it to this one request; raw, it would end the session.
            raise httpx2.StreamError(f"Connection closed: {_say(error, 'body cut off')}") from error

    async def aclose(self) -> None:
        await self._inner.aclose()


class _ReadToItsEnd(httpx2.AsyncByteStream):
    """An event stream whose connection can be used again.

    The SDK closes a response as soon as it has its answer, a moment before the server ends the
    stream; a connection closed there is thrown away, and every call would pay for a new one.
    """

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner, self._chunks = inner, aiter(inner)
        self._is_over = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except BaseException:
            self._is_over = True
            raise

    async def aclose(self) -> None:
        try:
            if not self._is_over:
                await self._drain()
        finally:
            await self._inner.aclose()

    async def _drain(self) -> None:
        with contextlib.suppress(StopAsyncIteration, TimeoutError, httpx2.TransportError):
            async with asyncio.timeout(LINGER_S):
                for _ in range(LINGER_CHUNKS):
                    await anext(self._chunks)


def _say(error: Exception, fallback: str) -> str:
    return f"{fallback} ({str(error) or type(error).__name__})"


def _retry_after_s(value: str | None, now_wall_s: float) -> float | None:
    """Seconds, from either form of the header. Source: RFC 9110, section 10.2.3."""
    if value is None:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        wait_s = aware.timestamp() - now_wall_s
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S) if math.isfinite(wait_s) else None

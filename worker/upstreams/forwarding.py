"""What passes by the SDK's session: `tools/call` built from an `Ask`, capabilities as the caller's, signs of life.

The SDK's session says the client's capabilities once, for itself. Here the client at the fleet's door
is another one for every call, so its capabilities ride in a key of their own and are put in place
on the way out. Legacy sessions declare none, and the key is dropped. On the way in every message of the
server is told of, before the session looks at it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Protocol, Self

from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CallToolRequest,
    CallToolRequestParams,
    JSONRPCError,
    JSONRPCRequest,
    JSONRPCResponse,
)

from worker.upstreams.errors import is_outage
from worker.upstreams.upstream import Ask

CARRIED_KEY = "mcpfleet/client-capabilities"


def call_request(tool: str, arguments: dict[str, Any], ask: Ask) -> CallToolRequest:
    """The request for one call; input responses and request state go on as they came.

    Raises:
        pydantic.ValidationError: those are not of the protocol's form.
    """
    meta = ask.call_meta()
    capabilities = ask.capabilities()
    if capabilities is not None:
        meta[CARRIED_KEY] = capabilities
    params: dict[str, Any] = {"name": tool, "arguments": arguments, "_meta": meta}
    for key in ("inputResponses", "requestState"):
        value = (ask.meta or {}).get(key)
        if value is not None:
            params[key] = value
    return CallToolRequest(params=CallToolRequestParams.model_validate(params, by_name=False))


class Calls(Protocol):
    """Who follows calls on the wire."""

    def sent(self, number: object) -> None:
        """A `tools/call` of that JSON-RPC id is being written, in the task of its caller."""
        ...

    def answered(self, number: object) -> None:
        """An answer to that id came."""
        ...


class Forwarding:
    """A transport whose outgoing requests get the carried capabilities put in place.

    Args:
        inner: the transport itself.
        heard: told of every message that the server sent, and not of faults that our own transports word as one.
        calls: told of calls and of answers as they pass.
    """

    def __init__(
        self, inner: AbstractAsyncContextManager[TransportStreams], heard: Callable[[], None], calls: Calls
    ) -> None:
        self._inner, self._heard, self._calls = inner, heard, calls

    async def __aenter__(self) -> TransportStreams:
        read, write = await self._inner.__aenter__()
        return _Hearing(read, self._heard, self._calls), _Placing(write, self._calls)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)


class _Hearing:
    def __init__(self, inner: ReadStream[SessionMessage | Exception], heard: Callable[[], None], calls: Calls) -> None:
        self._inner, self._heard, self._calls = inner, heard, calls

    @property
    def last_context(self) -> object:
        """The SDK looks for it on its own streams: the sender's context variables."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        return self._told(await self._inner.receive())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return self._told(await anext(self._inner))

    def _told(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        if isinstance(item, SessionMessage):
            message = item.message
            if not (isinstance(message, JSONRPCError) and is_outage(message.error.data)):
                self._heard()
            if isinstance(message, JSONRPCResponse | JSONRPCError):
                self._calls.answered(message.id)
        return item

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)


class _Placing:
    def __init__(self, inner: WriteStream[SessionMessage], calls: Calls) -> None:
        self._inner, self._calls = inner, calls

    async def send(self, item: SessionMessage, /) -> None:
        message = item.message
        if isinstance(message, JSONRPCRequest) and message.method == "tools/call":
            self._calls.sent(message.id)
            meta = (message.params or {}).get("_meta") or {}
            carried = meta.pop(CARRIED_KEY, None)
            if carried is not None and CLIENT_CAPABILITIES_META_KEY in meta:
                meta[CLIENT_CAPABILITIES_META_KEY] = carried
        await self._inner.send(item)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

"""What a call carries past the SDK's session: `tools/call` built from an `Ask`, capabilities as the caller's.

The SDK's session says the client's capabilities once, for itself. Here the client at the fleet's door
is another one for every call, so its capabilities ride in a key of their own and are put in place
on the way out. Legacy sessions declare none, and the key is dropped.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

from mcp.client._transport import TransportStreams, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CallToolRequest, CallToolRequestParams, JSONRPCRequest

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


class Forwarding:
    """A transport whose outgoing requests get the carried capabilities put in place."""

    def __init__(self, inner: AbstractAsyncContextManager[TransportStreams]) -> None:
        self._inner = inner

    async def __aenter__(self) -> TransportStreams:
        read, write = await self._inner.__aenter__()
        return read, _Placing(write)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)


class _Placing:
    def __init__(self, inner: WriteStream[SessionMessage]) -> None:
        self._inner = inner

    async def send(self, item: SessionMessage, /) -> None:
        message = item.message
        if isinstance(message, JSONRPCRequest) and message.method == "tools/call" and message.params is not None:
            meta = message.params.get("_meta") or {}
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

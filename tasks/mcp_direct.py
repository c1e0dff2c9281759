"""One MCP request handed to a lowlevel `Server` in this process, without a session or a transport.

Used for servers that run inside a node, and to answer `server/discover` before a connection's era is
settled. Speaks the 2026-07-28 form, where every request carries all it needs; so the server may send
progress, and nothing else, while it runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.message import MessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    Implementation,
    RequestId,
)
from mcp_types.version import LATEST_MODERN_VERSION

_TRANSPORT = TransportContext(kind="direct", can_send_request=False)


@dataclass(slots=True)
class DirectContext:
    """The SDK's `DispatchContext` of one such request."""

    request_id: RequestId | None = 1
    on_progress: Callable[[float, float | None, str | None], None] | None = None
    transport: TransportContext = _TRANSPORT
    can_send_request: bool = False
    message_metadata: MessageMetadata = None
    cancel_requested: anyio.Event = field(default_factory=anyio.Event)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Dropped: there is no stream to send it on."""

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,  # noqa: ARG002 - the SDK's interface
        opts: CallOptions | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Refused: 2026-07-28 servers ask by `input_required`, not by requests."""
        raise NoBackChannelError(method)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """To whoever waits for this request."""
        if self.on_progress is not None:
            self.on_progress(progress, total, message)


OnRequest = Callable[[DirectContext, str, Mapping[str, Any] | None], Awaitable[dict[str, Any]]]


def envelope(client: Implementation, capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """The `_meta` that every 2026-07-28 request carries."""
    return {
        PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION,
        CLIENT_INFO_META_KEY: client.model_dump(by_alias=True, mode="json", exclude_none=True),
        CLIENT_CAPABILITIES_META_KEY: dict(capabilities),
    }

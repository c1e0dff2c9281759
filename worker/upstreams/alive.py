"""The smallest request that every server answers: is it there?

`ping` in the handshake era; 2026-07-28 has no ping, there `server/discover` is mandatory and costs as little.
Any answer will do, also one that says no. Refuses to judge silence: callers bound it.
"""

from __future__ import annotations

from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types import DiscoverRequest, PingRequest, RequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tasks.outcome import Failure
from worker.upstreams.errors import from_rpc
from worker.upstreams.listing import RawResult


async def ask(session: ClientSession) -> None:
    """Returns when the server has answered.

    Raises:
        MCPError: something else answered for it: the connection ended, a proxy refused.
        ValidationError: what it said is not the protocol.
    """
    is_modern = session.protocol_version in MODERN_PROTOCOL_VERSIONS
    request = DiscoverRequest(params=RequestParams()) if is_modern else PingRequest(params=RequestParams())
    try:
        await session.send_request(request, RawResult)
    except MCPError as error:
        if from_rpc("", "", error, limit_bytes=0).info.failure is not Failure.PERMANENT:
            raise

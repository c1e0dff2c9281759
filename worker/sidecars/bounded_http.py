"""uvicorn's HTTP, for a socket that sandboxes open: with a bound on connections, which uvicorn has not.

Its `limit_concurrency` refuses requests and keeps their connections, so whoever opens connections and says nothing
takes all of the node's descriptors. Owns that bound. Refuses to tell runs apart: that is known by the request only.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTIONS_MAX = 256
BACKLOG = 64
"""That are accepted at a stroke, before the first of them is judged; uvicorn's own is 2048."""


class BoundedHttp(HttpToolsProtocol):
    """One connection. Where there are too many, it takes the place of one without a request, or is closed."""

    most = CONNECTIONS_MAX

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """See `asyncio.Protocol`."""
        if len(self.connections) >= self.most and not self._made_room():
            self.transport = transport  # which the end of the connection asks for
            transport.abort()
            return
        super().connection_made(transport)

    def _made_room(self) -> bool:
        for each in self.connections:
            if isinstance(each, BoundedHttp) and (each.cycle is None or each.cycle.response_complete):
                self.connections.discard(each)  # now: its end is told a moment later, and more come until then
                each.transport.abort()
                return True
        return False

"""The pipes of a server process, where they end between two steps of the event loop."""

from __future__ import annotations

from typing import Any, Self

import anyio
import pytest

from tasks.clock import SystemClock
from worker.upstreams.lines import StderrLog
from worker.upstreams.pipes import Pipes


class ClosedPipe:
    """A process whose stdin is closed already, with the event loop's word of that still to come; as uvloop has it."""

    def get_pipe_transport(self, _fd: int) -> Self:
        """Its stdin."""
        return self

    def is_closing(self) -> bool:
        """It is."""
        return True

    def write(self, _data: bytes) -> None:
        """Refused."""
        raise RuntimeError("unable to perform operation on <WriteUnixTransport closed=True>; the handler is closed")


async def test_writing_to_a_server_that_has_just_ended_is_a_lost_connection() -> None:
    """And no defect of the node: the session knows the one and not the other."""
    pipes = Pipes(StderrLog("s", secrets=(), clock=SystemClock()), limit_bytes=1000, on_down=lambda: None)
    process: Any = ClosedPipe()
    pipes.connection_made(process)
    with pytest.raises(anyio.ClosedResourceError):
        await pipes.write(b"{}\n")

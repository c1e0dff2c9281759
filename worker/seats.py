"""The slot of one attempt, which it may leave to others while it waits for a person, and take again.

Who comes back goes before what has not started. Refuses to know why a seat is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from worker.lanes import LaneQueue


class Seat:
    """Held from the start."""

    def __init__(self, queue: LaneQueue[Any], fill: Callable[[], None]) -> None:
        """`fill`: give free slots to who waits for one."""
        self._queue, self._fill, self._is_held = queue, fill, True
        self._turn: asyncio.Future[None] | None = None
        """Under way: all that want it back want the same one."""

    def leave(self) -> None:
        """Others may have it; also for good."""
        if self._is_held:
            self._is_held = False
            self._queue.release()
            self._fill()

    async def take_again(self) -> None:
        """Wait for a slot that is free. Cancelled, it holds none."""
        if self._is_held:
            return
        if self._turn is not None:
            await asyncio.shield(self._turn)  # another question's wait for the slot is this one's too
            return
        turn = self._turn = asyncio.get_running_loop().create_future()

        def seated() -> None:
            self._is_held = True
            if not turn.done():
                turn.set_result(None)

        self._queue.returning.append(seated)
        self._fill()
        try:
            await turn
        finally:
            self._turn = None
            turn.cancel()
            if seated in self._queue.returning:
                self._queue.returning.remove(seated)

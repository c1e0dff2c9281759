"""Runs watches beside a run: the first that raises ends the run.

Refuses to know what is watched: a watch never returns, and raises a FleetError that says what was exceeded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import structlog

from tasks.errors import FleetError

Trouble = Callable[[], FleetError | None]
_log = structlog.get_logger()


@contextlib.asynccontextmanager
async def watched(
    watches: tuple[Callable[[], Coroutine[Any, Any, None]], ...], cancel: Callable[[], Coroutine[Any, Any, None]]
) -> AsyncIterator[Trouble]:
    """While this is open. What was exceeded can be asked for afterwards."""
    found: list[FleetError] = []
    endings: set[asyncio.Task[None]] = set()

    def over(watch: asyncio.Task[None]) -> None:
        if watch.cancelled():
            return
        error = watch.exception()
        if isinstance(error, FleetError):
            found.append(error)
        else:
            _log.error("watch_broke", error=repr(error), effect="the run is ended: nobody keeps its limits")
        endings.add(asyncio.create_task(cancel()))

    tasks = [asyncio.create_task(watch()) for watch in watches]
    for task in tasks:
        task.add_done_callback(over)
    try:
        yield lambda: found[0] if found else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*endings, return_exceptions=True)

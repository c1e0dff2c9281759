"""The one bounded wait of asynchronous tests: for a condition, never for a time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
WITHIN_S = 30.0
ASK_EVERY_S = 0.02


async def until(holds: Callable[[], T | Awaitable[T]], within_s: float = WITHIN_S) -> T:
    """What `holds` says, once it is true.

    Raises:
        TimeoutError: it did not become true in time.
    """
    async with asyncio.timeout(within_s):
        while True:
            said = holds()
            found: T = await said if inspect.isawaitable(said) else said
            if found:
                return found
            await asyncio.sleep(ASK_EVERY_S)

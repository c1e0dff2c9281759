"""The one bounded wait of these modules: for what the kernel does by itself and tells nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

ASK_EVERY_S = 0.02


async def until(holds: Callable[[], object], within_s: float) -> bool:
    """Whether it came to hold in time."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                if holds():
                    return True
                await asyncio.sleep(ASK_EVERY_S)
    except TimeoutError:
        return False

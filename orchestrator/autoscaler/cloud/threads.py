"""Blocking libraries behind an asynchronous provider: a few threads, and an end to every wait.

Refuses to translate what a library raises: each provider knows its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from orchestrator.autoscaler.cloud.errors import CloudDown

T = TypeVar("T")
THREADS = 8
TOTAL_S = 50.0
"""Of one question to a provider, everything included; a provider promises a minute."""
CONNECT_S, READ_S = 10.0, 30.0
"""Of one request: a thread that nobody waits for any more comes back after both."""
PROMISED_S = 60.0
assert CONNECT_S + READ_S < TOTAL_S < PROMISED_S


class VendorThreads:
    """The threads of one provider."""

    def __init__(self, provider: str, *, threads: int = THREADS, total_s: float = TOTAL_S) -> None:
        self._provider = provider
        self._total_s = total_s
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"cloud-{provider}")

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """Around all that one question needs.

        Raises:
            CloudDown: it took too long; what a thread does at that moment it may still carry out.
        """
        try:
            async with asyncio.timeout(self._total_s):
                yield
        except TimeoutError:
            raise CloudDown(self._provider, f"nothing within {self._total_s:.0f} s") from None

    async def run(self, function: Callable[[], T]) -> T:
        """Its result. Given up while it waits for a thread, it never runs."""
        return await asyncio.wrap_future(self._pool.submit(function))

    def close(self) -> None:
        """Start nothing more; what runs ends by its own limits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

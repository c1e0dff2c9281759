"""Sums that take long are said again for a while, and made one at a time.

Open pages ask every second. A sum over a hundred thousand bookings takes half a second of one of the ledger's few
reader threads: four pages of costs would leave none to whoever asks for a call. Owns what is remembered, no more than
a few answers; refuses to know what is summed up.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from tasks.clock import Clock

SHARE = 20.0
"""Times as long as it took, an answer is reused: a sum is made for a twentieth of the time at most."""
REUSED_MAX_S = 60.0
KEPT = 64

T = TypeVar("T")


class Sums(Generic[T]):
    """What was summed up lately, by what was asked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._one = asyncio.Lock()

    async def of(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` answers, or answered a moment ago to the same."""
        async with self._one:
            begun_s = self._clock.mono_s()
            good_until_s, known = self._kept.get(key, (0.0, None))
            if known is not None and begun_s < good_until_s:
                return known
            made = await make()
            now_s = self._clock.mono_s()
            self._kept[key] = now_s + min(REUSED_MAX_S, SHARE * (now_s - begun_s)), made
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return made

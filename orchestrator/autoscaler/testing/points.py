"""Where a process of ours may die: between any two things that others see. Counted, and met on purpose."""

from __future__ import annotations

import asyncio
from random import Random


class Crash(BaseException):
    """The process ends here. Nothing of ours may catch it."""


class Points:
    """Every fake passes here before and after what it does."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._left: int | None = None
        self.is_dead = False

    def crash_after(self, points: int) -> None:
        """So many more, then it dies."""
        self._left = points

    def restart(self) -> None:
        """A new process."""
        self._left, self.is_dead = None, False

    async def pass_by(self) -> None:
        """Others may run meanwhile; a dead process goes no further.

        Raises:
            Crash: it dies, or is dead.
        """
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)
        if self._left is not None:
            self._left -= 1
            self.is_dead = self.is_dead or self._left < 0
        if self.is_dead:
            raise Crash

"""They draw faults, hurt the fleet with them, and write down when."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError

from tests.chaos.evidence import Trouble
from tests.chaos.faults import NODE, ORCHESTRATOR, Fault
from tests.chaos.fleet import Fleet


class Gremlins:
    """Each draws one fault after the other, never two on one target."""

    def __init__(self, fleet: Fleet, faults: Sequence[Fault], rng: random.Random, say: Callable[[str], None]) -> None:
        self.done: Counter[str] = Counter()
        self.troubles: list[Trouble] = []
        self._fleet, self._faults, self._rng, self._say = fleet, faults, rng, say
        self._busy: set[str] = set()

    async def run(self, until_s: float) -> None:
        """Until then; a fault that has begun is ended."""
        while True:
            await asyncio.sleep(self._rng.uniform(0.5, 2.5))
            if time.monotonic() >= until_s:
                return
            await self.harm_once(self._rng.choices(self._faults, [each.weight for each in self._faults])[0])

    async def harm_once(self, fault: Fault) -> None:
        """Do this one now, unless its target is being hurt already."""
        anyone = {NODE: self._fleet.node_names, ORCHESTRATOR: tuple(self._fleet.orchestrators)}
        target = self._rng.choice(anyone.get(fault.target, (fault.target,)))
        if target in self._busy:
            return
        self._busy.add(target)
        self.done[fault.name] += 1
        self._say(f"{fault.name}: {target}")
        began_at = time.time()
        try:
            await fault.harm(self._fleet, target, random.Random(self._rng.random()))
        except (RedisError, OSError, TimeoutError) as error:
            self._say(f"  {fault.name}: could not be done: {error}")  # its target was away for another reason
        finally:
            self._busy.discard(target)
            is_node = fault.target == NODE
            self.troubles.append(Trouble(target, fault.name, began_at, time.time(), is_node, fault.is_loss))

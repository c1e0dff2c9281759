"""What each cloud listed last. One list at a time per provider, in the background, and never waited for.

A list that fails or hangs delays nothing else: whoever needs it finds the last one, and how old it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

import structlog

from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine
from tasks.clock import Clock
from tasks.errors import FleetError

log = structlog.get_logger("mcpfleet.autoscaler")
LOOK_LIMIT_S = 90.0
"""A provider promises an answer within a minute."""


@dataclass(frozen=True, slots=True)
class Look:
    """One list.

    Attributes:
        number: grows with every list of this process.
        began_at: wall clock when it was asked for.
        former: ids of those machines that carry a name which the fleet had before.
    """

    provider: str
    number: int
    began_at: float
    machines: tuple[Machine, ...]
    former: frozenset[str] = frozenset()

    def find(self, machine_id: str | None) -> Machine | None:
        """One machine; None where it is not listed, or not yet."""
        return next((machine for machine in self.machines if machine.id == machine_id), None)


class Looks:
    """The newest list per provider."""

    def __init__(
        self, *, clouds: Mapping[str, CloudProvider], clusters: Callable[[str], Sequence[str]], clock: Clock
    ) -> None:
        """Clusters: tags that our machines carry at a provider, the present one first."""
        self._clouds, self._clusters, self._clock = clouds, clusters, clock
        self._newest: dict[str, Look] = {}
        self._new: dict[str, Look] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._asked_at_s: dict[str, float] = {}
        self._numbers = count(1)
        self.errors: dict[str, str] = {}
        """By provider, of the last list where it failed."""

    def of(self, provider: str) -> Look | None:
        """The newest; None before the first."""
        return self._newest.get(provider)

    def take(self) -> list[Look]:
        """Those that came since this was asked last."""
        taken, self._new = list(self._new.values()), {}
        return taken

    def refresh(self, provider: str, *, every_s: float) -> None:
        """Ask for a new list, unless one is under way or was asked for less than `every_s` ago."""
        cloud, now_s = self._clouds.get(provider), self._clock.mono_s()
        if cloud is None or provider in self._under_way:
            return
        if now_s - self._asked_at_s.get(provider, float("-inf")) < every_s:
            return
        self._asked_at_s[provider] = now_s
        task = asyncio.create_task(self._look(provider, cloud), name=f"look at {provider}")
        self._under_way[provider] = task
        task.add_done_callback(partial(self._came, provider))

    def under_way(self) -> list[asyncio.Task[None]]:
        """Lists that were asked for and have not come."""
        return list(self._under_way.values())

    def _came(self, provider: str, _task: asyncio.Task[None]) -> None:
        self._under_way.pop(provider, None)

    async def _look(self, provider: str, cloud: CloudProvider) -> None:
        began_at = self._clock.wall_s()
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                # Or none: a cluster left out would look like machines that are gone.
                lists = await asyncio.gather(*(cloud.machines(cluster) for cluster in self._clusters(provider)))
        except (FleetError, TimeoutError) as error:
            self.errors[provider] = str(error) or f"no list within {LOOK_LIMIT_S:.0f} s"
            log.warning("cloud_not_listed", provider=provider, error=self.errors[provider])
            return
        except Exception as error:
            self.errors[provider] = repr(error)
            log.exception("cloud_list_failed", provider=provider)
            return
        self.errors.pop(provider, None)
        machines = tuple(machine for each in lists for machine in each)
        former = frozenset(machine.id for each in lists[1:] for machine in each)
        look = Look(provider, next(self._numbers), began_at, machines, former)
        self._newest[provider] = self._new[provider] = look

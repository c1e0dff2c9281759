"""Machines that their clouds said they take away. Asked in the background, of clouds with spot machines of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import structlog

from orchestrator.autoscaler.cloud.provider import CloudProvider
from orchestrator.autoscaler.values import NodeClaim
from tasks.clock import Clock
from tasks.errors import FleetError

log = structlog.get_logger("mcpfleet.autoscaler")
ASK_EVERY_S = 5.0
"""The shortest notice a large cloud gives is 30 s."""


class Notices:
    """What was said; it holds until the machine's claim is gone."""

    def __init__(
        self, *, clouds: Mapping[str, CloudProvider], clusters: Callable[[str], Sequence[str]], clock: Clock
    ) -> None:
        """Clusters: tags that our machines carry at a provider."""
        self._clouds, self._clusters, self._clock = clouds, clusters, clock
        self._noticed: set[tuple[str, str]] = set()
        self._asked_at_s: dict[str, float] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def has(self, claim: NodeClaim) -> bool:
        """Its machine is taken away."""
        return claim.machine_id is not None and (claim.rung.provider, claim.machine_id) in self._noticed

    def refresh(self, standing: Iterable[NodeClaim]) -> None:
        """Ask again where it is due; forget machines that no claim stands for."""
        claims = list(standing)
        self._noticed &= {(c.rung.provider, c.machine_id) for c in claims if c.machine_id is not None}
        now_s = self._clock.mono_s()
        for provider in {claim.rung.provider for claim in claims if claim.rung.is_spot} & self._clouds.keys():
            if provider in self._under_way or now_s - self._asked_at_s.get(provider, float("-inf")) < ASK_EVERY_S:
                continue
            self._asked_at_s[provider] = now_s
            task = asyncio.create_task(self._ask(provider), name=f"notices of {provider}")
            self._under_way[provider] = task
            task.add_done_callback(partial(self._came, provider))

    def under_way(self) -> list[asyncio.Task[None]]:
        """Answers that were asked for and have not come."""
        return list(self._under_way.values())

    def _came(self, provider: str, _task: asyncio.Task[None]) -> None:
        self._under_way.pop(provider, None)

    async def _ask(self, provider: str) -> None:
        try:
            cloud = self._clouds[provider]
            notices = [notice for cluster in self._clusters(provider) for notice in await cloud.notices(cluster)]
        except FleetError as error:
            log.warning("notices_unavailable", provider=provider, error=error.message)
        except Exception:
            log.exception("notices_failed", provider=provider)
        else:
            self._noticed |= {(provider, notice.machine_id) for notice in notices}

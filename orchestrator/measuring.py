"""Everything that is measured, made once and put on the parts that know. Each metric has its owner elsewhere.

`/metrics` of the orchestrator is this registry; docs/metrics.md lists it, made from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.types import ASGIApp

from orchestrator.autoscaler.book.scale_log import ROUND_S
from orchestrator.core import Core
from orchestrator.front.who import METHOD_KEY, TRACE_KEY
from orchestrator.happenings import Happening
from orchestrator.identity.ca import Authority
from orchestrator.leader import Every, Leadership
from orchestrator.observability.calls import LiveCalls
from orchestrator.observability.doors import ApiMeter, DoorMetrics, MeasuredMcp
from orchestrator.observability.fleet_gauges import FleetCollector
from orchestrator.observability.metrics import Metrics
from orchestrator.observability.objectives import Objectives
from orchestrator.observability.vitals import Round, StandingCollector, Vitals
from orchestrator.settings import OrchestratorSettings
from orchestrator.views import Views

LONG_LIVED_S = 14 * 86_400.0
"""What is good for less is replaced by whoever holds it, as a matter of course: its end is no news."""
ENDED_IS_NEWS_S = 86_400.0
"""A key that ended is listed for weeks; told of for as long, it would hide the next one that ends."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the rest of the orchestrator needs of it."""

    registry: CollectorRegistry
    objectives: Objectives
    vitals: Vitals
    doors: DoorMetrics

    def for_api(self) -> dict[str, Any]:
        """What the HTTP door takes of it, by `create_app`'s names."""
        return {"registry": self.registry, "meter": ApiMeter(self.doors), "objectives": self.objectives}

    def mcp(self, app: ASGIApp) -> ASGIApp:
        """The MCP door, measured."""
        return MeasuredMcp(app, self.doors, METHOD_KEY, TRACE_KEY)


def measured_of(core: Core, views: Views, settings: OrchestratorSettings) -> Measured:
    """Listens from now on; `watch` adds what is made later."""
    registry, clock = CollectorRegistry(), core.stores.clock
    calls = LiveCalls(clock)
    metrics = Metrics(registry, calls)
    objectives = Objectives(registry, calls, clock, lease_ttl_s=settings.lease_ttl_s)

    def hear(happening: Happening) -> None:
        calls.begin(happening)
        metrics.hear(happening)
        objectives.hear(happening)
        calls.end(happening)

    core.happenings.listen(hear)
    registry.register(FleetCollector(nodes=views.nodes, pools=views.pools, backlog=core.dispatcher.backlog))
    ProcessCollector(registry=registry)
    vitals = Vitals(registry, dead_count=core.stores.ledger.dead_count, redis=core.stores.redis, clock=clock)
    return Measured(registry, objectives, vitals, DoorMetrics(registry, clock, objectives.refused))


def watch(
    measured: Measured,
    core: Core,
    leadership: Leadership,
    scaled_at_s: Callable[[], float | None],
    expiries: Callable[[], Iterable[tuple[str, float]]],
) -> None:
    """Whether this process leads, how its loops go, and what ends soonest.

    `scaled_at_s` is when the autoscaler's last round ended (monotonic clock), `expiries` the kind and the end (wall
    clock) of what ends.
    """

    def rounds() -> Iterator[Round]:
        now_s = asyncio.get_running_loop().time()
        for loop in leadership.loops:
            if isinstance(loop, Every) and loop.ended_at_s is not None:
                yield Round(loop.name, loop.period_s, now_s - loop.ended_at_s)
        at_s = scaled_at_s()
        if at_s is not None:
            yield Round("autoscaler", ROUND_S, core.stores.clock.mono_s() - at_s)

    measured.registry.register(StandingCollector(leads=core.proof.holds, rounds=rounds, expiries=expiries))


def expiries_of(
    settings: OrchestratorSettings, core: Core, authority: Authority | None
) -> Callable[[], Iterable[tuple[str, float]]]:
    """API keys, and the certificates of the doors. A certificate from a file is read as it was loaded: now."""
    fixed: list[tuple[str, float]] = []
    if authority is not None:
        fixed.append(("authority", authority.ends_at))
    if settings.tls and settings.tls_cert is not None:
        certificates = x509.load_pem_x509_certificates(settings.tls_cert.read_bytes())
        fixed.append(("certificate", min(one.not_valid_after_utc.timestamp() for one in certificates)))

    def ends() -> Iterator[tuple[str, float]]:
        yield from fixed
        told_from = core.stores.clock.wall_s() - ENDED_IS_NEWS_S
        for made_at, at in core.keys.ends():
            if at - made_at >= LONG_LIVED_S and at > told_from:
                yield "api_key", at

    return ends

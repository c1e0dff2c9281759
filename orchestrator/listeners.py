"""Makes what listens to happenings and shows them: spans, the console's pages, the pulse of `mcpfleet top`, Flower."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute

from orchestrator.console.frame import Console
from orchestrator.console.live import Pulse as LivePages
from orchestrator.console.pages import PAGES
from orchestrator.console.session import Sessions
from orchestrator.core import Core
from orchestrator.limits import api_settings, redis_url_of, seal_secret
from orchestrator.observability.flower_feed import FlowerFeed
from orchestrator.observability.flower_past import newest_calls
from orchestrator.observability.pulse import Pulse
from orchestrator.observability.spans import SpanFeed
from orchestrator.redis_client import ANSWER_S
from orchestrator.settings import OrchestratorSettings
from orchestrator.views import Views
from tasks.otlp import Otlp
from tasks.otlp_metrics import OtlpCollector
from tasks.pool import Strategy
from tasks.pulse_wire import PulseView
from tasks.redis_clients import sync_client


def trace(core: Core, otlp: Otlp | None, registry: CollectorRegistry) -> None:
    """Make spans of every call, where they are wanted; what becomes of them is a metric."""
    if otlp is not None:
        core.happenings.listen(SpanFeed(otlp, get=core.stores.ledger.get, clock=core.stores.clock).hear)
        registry.register(OtlpCollector(otlp))


def pulse_of(core: Core) -> Callable[[], PulseView]:
    """Rates and waits of the last minute."""
    pulse = Pulse(core.stores.clock)
    core.happenings.listen(pulse.hear)
    return pulse.view


def console_of(settings: OrchestratorSettings, core: Core, live: LivePages) -> list[BaseRoute]:
    """The web console, where it is wanted."""
    if not settings.console:
        return []
    clock = core.stores.clock
    core.happenings.listen(live.beat)
    sessions = Sessions(seal_secret(settings), idle_s=settings.console_idle_s, clock=clock)
    return Console(PAGES, sessions=sessions, pulse=live, clock=clock, version=api_settings(settings).version).routes()


def flower_feed_of(settings: OrchestratorSettings, core: Core, views: Views) -> FlowerFeed | None:
    """What Flower is told, where it is wanted."""
    if not settings.flower_feed:
        return None
    redis = sync_client(redis_url_of(settings), answer_s=ANSWER_S)
    feed = FlowerFeed(
        core.stores.celery,
        redis,
        nodes=views.nodes,
        is_late=lambda pool: core.policies.of(pool).strategy is Strategy.LATE,
        past=newest_calls(core.stores.ledger, settings.flower_history_calls, asyncio.get_running_loop()),
        leads=core.proof.holds,
        clock=core.stores.clock,
    )
    core.happenings.listen(feed.hear)
    return feed

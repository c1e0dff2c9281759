"""Constructs the orchestrator and runs it. The only place where its parts meet.

Read it from `build` downwards: every part is made once, with what it needs handed in.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from starlette.applications import Starlette

from orchestrator.api.app import create_app
from orchestrator.api.settings import ApiSettings, hosts_for
from orchestrator.blobs.disk import DiskBlobs
from orchestrator.dispatch.affinity import Affinity
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.open_attempts import OpenAttempts
from orchestrator.dispatch.send import Sender
from orchestrator.dispatch.view import FleetView, Seat
from orchestrator.fleet import Fleet
from orchestrator.front.app import McpFront
from orchestrator.front.settings import LOOPBACK_HOSTS, LOOPBACK_ORIGINS, FrontSettings
from orchestrator.happenings import Happenings
from orchestrator.identity.tokens import Tokens, static
from orchestrator.intake.check import Intake, Limits
from orchestrator.intake.watch import Watch
from orchestrator.leader import Leadership, every
from orchestrator.ledger.ledger import Ledger
from orchestrator.observability.flower_feed import FlowerFeed
from orchestrator.observability.metrics import FleetCollector, Metrics
from orchestrator.outbox import Outbox
from orchestrator.pools import read_pools
from orchestrator.registry.desk import NodeDesk, Terms
from orchestrator.registry.roster import Roster
from orchestrator.settings import OrchestratorSettings
from orchestrator.settling.settler import Settler, as_waiting
from orchestrator.settling.streams import NodeStreams
from orchestrator.settling.sweep import Graces, Sweep
from orchestrator.views import Views
from tasks.app import make_app
from tasks.clock import Clock, SystemClock
from tasks.pool import PoolPolicy, Strategy
from tasks.retry import RetryPolicy
from tasks.telemetry import configure

log = structlog.get_logger("mcpfleet.bootstrap")
SWITCH_INTERVAL_S = 0.0005
"""Of the interpreter's threads: the default 5 ms would hold up a commit behind a busy event loop."""
LAPSE_EVERY_S = 0.25
SWEEP_EVERY_S = 1.0
RELOAD_EVERY_S = 2.0
WAITING_PAGE = 5000


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """Everything a running orchestrator is made of that its callers and tests ask for."""

    app: Starlette
    fleet: Fleet
    ledger: Ledger
    leadership: Leadership
    dispatcher: Dispatcher
    roster: Roster


async def build(settings: OrchestratorSettings, *, clock: Clock | None = None) -> Orchestrator:  # noqa: PLR0915
    """Make every part.

    Raises:
        LedgerDown: the database does not answer.
        SettingsError: a file that a setting names is wrong.
    """
    clock = clock or SystemClock()
    policies = read_pools(settings.pools_file)
    ledger = await Ledger.open(settings.database_url, clock=clock)
    redis_url = settings.redis_url.get_secret_value()
    redis: Redis = Redis.from_url(redis_url, health_check_interval=15)
    celery = make_app(redis_url)
    blobs = DiskBlobs(settings.blob_dir)
    happenings, watch, roster, attempts = Happenings(), Watch(), Roster(), OpenAttempts()
    happenings.listen(watch.hear)
    terms = _terms(settings)
    sender = Sender(celery)
    dispatcher = Dispatcher(
        books=ledger,
        outbox=Outbox(roster=roster, sender=sender, pool_key=terms.pool_key),
        attempts=attempts,
        affinity=Affinity(await ledger.affinities()),
        build_view=lambda paused: view_of(roster, policies, paused, clock),
        paused=await ledger.paused(),
        clock=clock,
        tell=happenings.tell,
    )
    intake = Intake(
        fleet=roster,
        blobs=blobs,
        limits=Limits(settings.inline_limit_bytes, settings.payload_limit_bytes, settings.max_backlog),
        clock=clock,
        waiting=dispatcher.waiting,
        has_pool=lambda name: name in roster.pools() or name in policies,
    )
    settler = Settler(
        books=ledger,
        attempts=attempts,
        backlog=dispatcher,
        tool=roster.tool,
        successors=lambda invocation, outcome: intake.successors(invocation, outcome.result_json),
        default_policy=RetryPolicy(settings.retry_attempts, settings.retry_first_wait_s, cap_s=settings.retry_cap_s),
        clock=clock,
        draw=random.random,
        tell=happenings.tell,
    )
    streams = NodeStreams(
        redis,
        settling=settler,
        nodes=lambda: [member.name for member in roster.members()],
        tell=happenings.tell,
        clock=clock,
    )
    ringing: set[asyncio.Task[None]] = set()

    def fleet_changed() -> None:
        dispatcher.fleet_changed()
        task = asyncio.ensure_future(streams.ring())
        ringing.add(task)
        task.add_done_callback(ringing.discard)

    desk = NodeDesk(
        roster=roster,
        store=ledger,
        attempts=attempts,
        fates=settler,
        terms=terms,
        clock=clock,
        is_late=lambda pool: _policy(policies, pool).strategy is Strategy.LATE,
        on_change=fleet_changed,
    )
    views = Views(
        roster=roster,
        occupancy=attempts,
        redis=redis,
        policy=lambda pool: _policy(policies, pool),
        paused=dispatcher.paused,
        waiting_in_pool=dispatcher.waiting_in_pool,
        projects_of=dispatcher.projects_of,
        clock=clock,
    )
    fleet = Fleet(
        intake=intake,
        books=ledger,
        dispatch=dispatcher,
        nodes=desk,
        tools=roster,
        voice=streams,
        blobs=blobs,
        watch=watch,
        views=views,
        clock=clock,
        tell=happenings.tell,
        as_waiting=as_waiting,
    )
    sweep = Sweep(
        attempts=attempts.all,
        fates=settler,
        graces=Graces(settings.grace_tools_s, settings.grace_agents_s),
        clock=clock,
    )

    async def gained(epoch: int) -> None:
        desk.restore([row for row in await ledger.nodes() if roster.find(row.name) is None])
        for attempt in await ledger.outstanding():
            attempts.add(attempt)
        dispatcher.epoch = epoch
        await _load_waiting(ledger, dispatcher)
        fleet_changed()

    def lost() -> None:
        dispatcher.epoch = None

    async def report_loads() -> None:
        dispatcher.loads_changed({m.name: (m.load.cpu, m.load.memory) for m in roster.members()})

    leadership = Leadership(
        epochs=ledger,
        holder=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
        ttl_s=settings.leader_ttl_s,
        gained=gained,
        lost=lost,
        loops=[
            dispatcher.run,
            streams.run,
            every(LAPSE_EVERY_S, desk.lapse, "lapse"),
            every(SWEEP_EVERY_S, sweep.sweep, "sweep"),
            every(SWEEP_EVERY_S, dispatcher.save_affinity, "affinity"),
            every(RELOAD_EVERY_S, report_loads, "loads"),
        ],
    )
    registry = CollectorRegistry()
    happenings.listen(Metrics(registry).hear)
    registry.register(FleetCollector(nodes=views.nodes, pools=views.pools, backlog=dispatcher.backlog))
    feed = FlowerFeed(celery, SyncRedis.from_url(redis_url), nodes=views.nodes, clock=clock)
    happenings.listen(feed.hear)
    tokens = Tokens(
        static(settings.token.get_secret_value(), settings.join_token.get_secret_value()), node_of=desk.node_of
    )
    front = McpFront(fleet, tokens, _front_settings(settings), clock)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        sender.start()
        if settings.flower_feed:
            feed.start()
        leading = asyncio.create_task(leadership.run())
        try:
            async with front.running():
                yield
        finally:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
            await asyncio.to_thread(sender.stop)
            if settings.flower_feed:
                await asyncio.to_thread(feed.stop)
            await ledger.close()
            await redis.aclose()

    app = create_app(
        fleet,
        desk,
        blobs,
        tokens,
        _api_settings(settings),
        registry=registry,
        clock=clock,
        extra_routes=front.routes(),
        lifespan=lifespan,
    )
    return Orchestrator(app, fleet, ledger, leadership, dispatcher, roster)


async def serve(settings: OrchestratorSettings) -> None:
    """Run until SIGTERM or SIGINT. The ready file, if asked for, is written once the doors are open."""
    configure("orchestrator", level=settings.log_level.lower())
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    orchestrator = await build(settings)
    listening = _listen(settings)
    config = uvicorn.Config(
        orchestrator.app,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        lifespan="on",
    )
    server = _Announcing(config, settings, listening)
    await server.serve(sockets=[listening])


class _Announcing(uvicorn.Server):
    """Writes the ready file after startup, when the doors answer."""

    def __init__(self, config: uvicorn.Config, settings: OrchestratorSettings, listening: socket.socket) -> None:
        super().__init__(config)
        self._settings, self._listening = settings, listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own, then say where we are."""
        await super().startup(sockets=sockets)
        host, port = self._listening.getsockname()[:2]
        url = f"http://{host}:{port}"
        log.info("doors_open", url=url)
        ready = self._settings.ready_file
        if ready is not None:
            partial = ready.with_suffix(".partial")
            partial.write_text(f"{url}\n")
            partial.replace(ready)


def view_of(
    roster: Roster, policies: dict[str, PoolPolicy], paused: frozenset[tuple[str, str]], clock: Clock
) -> FleetView:
    """The fleet as `route` sees it."""
    now_s = clock.mono_s()
    seats = {
        member.name: Seat(
            node=member.name,
            pool=member.offer.pool,
            capabilities=member.capabilities,
            tools=frozenset(member.tools),
            slots=dict(member.offer.slots),
            weight=member.offer.weight,
            cpu=member.load.cpu,
            memory=member.load.memory,
            is_open=member.is_open(now_s),
            state=member.state,
        )
        for member in roster.members()
    }
    return FleetView(roster.version, seats, policies, paused)


def _policy(policies: dict[str, PoolPolicy], pool: str) -> PoolPolicy:
    return policies.get(pool) or PoolPolicy(pool)


def _terms(settings: OrchestratorSettings) -> Terms:
    secret = settings.pool_secret or settings.join_token
    return Terms(
        redis_url=(settings.redis_url_for_nodes or settings.redis_url).get_secret_value(),
        lease_ttl_s=settings.lease_ttl_s,
        renew_every_s=settings.renew_every_s,
        inline_limit_bytes=settings.inline_limit_bytes,
        result_limit_bytes=settings.result_limit_bytes,
        pool_secret=secret.get_secret_value().encode(),
    )


def _hosts(settings: OrchestratorSettings) -> tuple[str, ...]:
    return tuple(host.strip() for host in settings.allowed_hosts.split(",") if host.strip())


def _front_settings(settings: OrchestratorSettings) -> FrontSettings:
    named = _hosts(settings)
    return FrontSettings(
        version=version("mcpfleet"),
        sse_path="/sse" if settings.sse else None,
        allowed_hosts=(*LOOPBACK_HOSTS, *named, *(f"{host}:*" for host in named)),
        allowed_origins=(*LOOPBACK_ORIGINS, *(f"https://{host}" for host in named)),
        body_limit_bytes=settings.payload_limit_bytes,
        inline_window_s=settings.task_after_s,
    )


def _api_settings(settings: OrchestratorSettings) -> ApiSettings:
    hosts = hosts_for(settings.host)
    return replace(
        ApiSettings(),
        allowed_hosts=hosts and hosts | frozenset(_hosts(settings)),
        blob_limit_bytes=settings.result_limit_bytes,
        is_metrics_open=settings.open_metrics,
        version=version("mcpfleet"),
    )


def _listen(settings: OrchestratorSettings) -> socket.socket:
    if settings.listen_fd is not None:
        return socket.socket(fileno=settings.listen_fd)
    return socket.create_server((settings.host, settings.port), backlog=2048)


async def _load_waiting(ledger: Ledger, dispatcher: Dispatcher) -> None:
    after: str | None = None
    while page := await ledger.waiting(after=after, limit=WAITING_PAGE):
        for waiting in page:
            dispatcher.offer(waiting)
        after = page[-1].id

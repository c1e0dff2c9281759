"""Makes every part of the orchestrator once, in the order they need each other.

Stores, then the core that decides, then the doors. `bootstrap.py` runs what is made here.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from celery import Celery
from prometheus_client import CollectorRegistry
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from starlette.applications import Starlette

from orchestrator.api import strict_json
from orchestrator.api.app import create_app
from orchestrator.blobs.disk import DiskBlobs
from orchestrator.dispatch.affinity import Affinity
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.open_attempts import OpenAttempts
from orchestrator.dispatch.send import Sender
from orchestrator.fleet import Fleet
from orchestrator.front.app import McpFront
from orchestrator.happenings import Happenings
from orchestrator.health.circuits import Circuits
from orchestrator.identity.tokens import Tokens, static
from orchestrator.intake.check import Intake, Limits
from orchestrator.intake.watch import Watch
from orchestrator.leader import Leadership, Loop, every
from orchestrator.ledger.ledger import Ledger
from orchestrator.limits import api_settings, front_settings, retry_policy, terms_of
from orchestrator.observability.flower_feed import FlowerFeed
from orchestrator.observability.metrics import FleetCollector, Metrics
from orchestrator.outbox import Outbox
from orchestrator.outbox import Sender as Publisher
from orchestrator.pools import Policies, read_pools
from orchestrator.redis_client import redis_of
from orchestrator.registry.desk import NodeDesk, Terms
from orchestrator.registry.roster import Roster
from orchestrator.seats import view_of
from orchestrator.settings import OrchestratorSettings
from orchestrator.settling.doubts import Doubts
from orchestrator.settling.settler import Settler
from orchestrator.settling.streams import NodeStreams
from orchestrator.settling.sweep import Graces, Sweep
from orchestrator.settling.waiting import as_waiting
from orchestrator.views import Views
from tasks.app import make_app
from tasks.clock import Clock, SystemClock
from tasks.pool import Strategy

LAPSE_EVERY_S = 0.25
SWEEP_EVERY_S = 1.0
RELOAD_EVERY_S = 2.0
WAITING_PAGE = 5000


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything outside this process, and time."""

    ledger: Ledger
    redis: Redis
    celery: Celery
    blobs: DiskBlobs
    clock: Clock


@dataclass(frozen=True, slots=True)
class Core:
    """What decides."""

    stores: Stores
    policies: Policies
    happenings: Happenings
    watch: Watch
    roster: Roster
    attempts: OpenAttempts
    dispatcher: Dispatcher
    intake: Intake
    settler: Settler
    streams: NodeStreams
    desk: NodeDesk
    doubts: Doubts
    circuits: Circuits


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """What a caller of `build` works with."""

    app: Starlette
    fleet: Fleet
    core: Core
    leadership: Leadership
    leave_calls_running: Callable[[], None]
    """Before doors close: a call whose client is cut off then goes on."""


async def build(settings: OrchestratorSettings, *, clock: Clock | None = None) -> Orchestrator:
    """Make every part.

    Raises:
        LedgerDown: the database does not answer.
        SettingsError: a file that a setting names is wrong.
    """
    stores = await _stores(settings, clock or SystemClock())
    sender = Sender(stores.celery)
    core = await core_of(settings, stores, sender)
    views = views_of(core)
    fleet = fleet_of(core, views)
    leadership = _leadership(settings, core)
    registry = CollectorRegistry()
    core.happenings.listen(Metrics(registry).hear)
    registry.register(FleetCollector(nodes=views.nodes, pools=views.pools, backlog=core.dispatcher.backlog))
    tokens = Tokens(
        static(settings.token.get_secret_value(), settings.join_token.get_secret_value()), node_of=core.desk.node_of
    )
    front = McpFront(fleet, tokens, front_settings(settings), core.stores.clock, parse=strict_json.parse)
    feed = _flower_feed(settings, core, views)
    app = create_app(
        fleet,
        core.desk,
        core.stores.blobs,
        tokens,
        api_settings(settings),
        registry=registry,
        clock=core.stores.clock,
        extra_routes=front.routes(),
        lifespan=_lifespan(core, sender, leadership, front, feed),
    )
    return Orchestrator(app, fleet, core, leadership, front.leave_calls_running)


async def _stores(settings: OrchestratorSettings, clock: Clock) -> Stores:
    url = settings.redis_url.get_secret_value()
    return Stores(
        ledger=await Ledger.open(settings.database_url, clock=clock),
        redis=redis_of(url),
        celery=make_app(url),
        blobs=DiskBlobs(settings.blob_dir),
        clock=clock,
    )


async def core_of(settings: OrchestratorSettings, stores: Stores, sender: Publisher) -> Core:
    """Everything that decides; nothing here listens or runs yet."""
    policies, roster, attempts = read_pools(settings.pools_file), Roster(), OpenAttempts()
    happenings, watch = Happenings(), Watch()
    happenings.listen(watch.hear)
    terms = terms_of(settings)
    doubts = Doubts(books=stores.ledger, attempts=attempts)
    circuits = _circuits(stores, sender, roster, happenings)
    dispatcher = await _dispatcher(stores, sender, terms, roster, policies, attempts, circuits, doubts, happenings)
    intake = _intake(settings, stores, roster, policies, dispatcher)
    settler = _settler(settings, stores, roster, attempts, dispatcher, doubts, intake, happenings)
    streams = NodeStreams(stores.redis, settling=settler, nodes=roster.names, tell=happenings.tell, clock=stores.clock)
    desk = NodeDesk(
        roster=roster,
        store=stores.ledger,
        attempts=attempts,
        fates=settler,
        terms=terms,
        clock=stores.clock,
        is_late=lambda pool: policies.of(pool).strategy is Strategy.LATE,
        on_change=lambda: _fleet_changed(dispatcher, streams),
        on_claim=dispatcher.claimed,
        on_left=streams.forget_soon,
    )
    doubts.backlog, circuits.on_change = dispatcher, dispatcher.fleet_changed
    return Core(
        stores,
        policies,
        happenings,
        watch,
        roster,
        attempts,
        dispatcher,
        intake,
        settler,
        streams,
        desk,
        doubts,
        circuits,
    )


def _circuits(stores: Stores, sender: Publisher, roster: Roster, happenings: Happenings) -> Circuits:
    circuits = Circuits(
        incarnation_of=roster.incarnation_of, broker_down=lambda: sender.down_because, clock=stores.clock
    )
    happenings.listen(circuits.hear)
    return circuits


async def _dispatcher(  # noqa: PLR0917 - one part, and everything it needs
    stores: Stores,
    sender: Publisher,
    terms: Terms,
    roster: Roster,
    policies: Policies,
    attempts: OpenAttempts,
    circuits: Circuits,
    doubts: Doubts,
    happenings: Happenings,
) -> Dispatcher:
    return Dispatcher(
        books=stores.ledger,
        outbox=Outbox(roster=roster, sender=sender, pool_key=terms.pool_key),
        attempts=attempts,
        affinity=Affinity(await stores.ledger.affinities()),
        build_view=lambda paused: view_of(roster, policies, paused, circuits, stores.clock),
        paused=await stores.ledger.paused(),
        clock=stores.clock,
        tell=happenings.tell,
        doubt=doubts.note,
        placed=circuits.placed,
    )


def _settler(  # noqa: PLR0917 - one part, and everything it needs
    settings: OrchestratorSettings,
    stores: Stores,
    roster: Roster,
    attempts: OpenAttempts,
    dispatcher: Dispatcher,
    doubts: Doubts,
    intake: Intake,
    happenings: Happenings,
) -> Settler:
    return Settler(
        books=stores.ledger,
        attempts=attempts,
        backlog=dispatcher,
        tool=roster.tool,
        is_safe=roster.is_safe,
        on_node_loss=roster.on_node_loss,
        doubts=doubts,
        successors=intake.successors,
        default_policy=retry_policy(settings),
        clock=stores.clock,
        draw=random.random,
        tell=happenings.tell,
    )


def _intake(
    settings: OrchestratorSettings, stores: Stores, roster: Roster, policies: Policies, dispatcher: Dispatcher
) -> Intake:
    return Intake(
        fleet=roster,
        blobs=stores.blobs,
        limits=Limits(settings.inline_limit_bytes, settings.payload_limit_bytes, settings.max_backlog),
        clock=stores.clock,
        waiting=dispatcher.waiting,
        has_pool=lambda name: name in roster.pools() or policies.has(name),
    )


def _fleet_changed(dispatcher: Dispatcher, streams: NodeStreams) -> None:
    dispatcher.fleet_changed()
    streams.ring_soon()


def views_of(core: Core) -> Views:
    """The fleet shown."""
    return Views(
        roster=core.roster,
        occupancy=core.attempts,
        redis=core.stores.redis,
        policy=core.policies.of,
        paused=core.dispatcher.paused,
        waiting_in_pool=core.dispatcher.waiting_in_pool,
        projects_of=core.dispatcher.projects_of,
        circuits=core.circuits.open_at,
        clock=core.stores.clock,
    )


def fleet_of(core: Core, views: Views) -> Fleet:
    """What every door calls."""
    return Fleet(
        intake=core.intake,
        books=core.stores.ledger,
        dispatch=core.dispatcher,
        attempts=core.attempts,
        nodes=core.desk,
        tools=core.roster,
        voice=core.streams,
        blobs=core.stores.blobs,
        watch=core.watch,
        views=views,
        clock=core.stores.clock,
        tell=core.happenings.tell,
        as_waiting=as_waiting,
    )


def _leadership(settings: OrchestratorSettings, core: Core) -> Leadership:
    def lost() -> None:
        core.dispatcher.epoch = None

    return Leadership(
        epochs=core.stores.ledger,
        holder=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
        ttl_s=settings.leader_ttl_s,
        gained=lead(core),
        lost=lost,
        loops=_loops(settings, core),
    )


def lead(core: Core) -> Callable[[int], Awaitable[None]]:
    """What a new leader does first: remember nodes, open attempts, and everything that waits."""

    async def gained(epoch: int) -> None:
        ledger, roster = core.stores.ledger, core.roster
        core.desk.restore([row for row in await ledger.nodes() if roster.find(row.name) is None])
        for attempt in await ledger.outstanding():
            core.attempts.add(attempt)
        core.dispatcher.epoch = epoch
        after: str | None = None
        while page := await ledger.waiting(after=after, limit=WAITING_PAGE):
            for waiting in page:
                core.dispatcher.offer(waiting)
            after = page[-1].id
        _fleet_changed(core.dispatcher, core.streams)

    return gained


def _loops(settings: OrchestratorSettings, core: Core) -> list[Loop]:
    graces = Graces(settings.grace_tools_s, settings.grace_agents_s)
    sweep = Sweep(
        attempts=core.attempts.all,
        is_member=lambda name: core.roster.find(name) is not None,
        fates=core.settler,
        graces=graces,
        clock=core.stores.clock,
    )

    async def report_loads() -> None:
        core.dispatcher.loads_changed({m.name: (m.load.cpu, m.load.memory) for m in core.roster.members()})

    return [
        core.dispatcher.run,
        core.streams.run,
        every(LAPSE_EVERY_S, core.desk.lapse, "lapse"),
        every(SWEEP_EVERY_S, sweep.sweep, "sweep"),
        every(SWEEP_EVERY_S, core.doubts.resolve, "doubts"),
        every(SWEEP_EVERY_S, core.circuits.look, "circuits"),
        every(SWEEP_EVERY_S, core.dispatcher.save_affinity, "affinity"),
        every(RELOAD_EVERY_S, report_loads, "loads"),
    ]


def _flower_feed(settings: OrchestratorSettings, core: Core, views: Views) -> FlowerFeed | None:
    if not settings.flower_feed:
        return None
    redis = SyncRedis.from_url(settings.redis_url.get_secret_value())
    feed = FlowerFeed(core.stores.celery, redis, nodes=views.nodes, clock=core.stores.clock)
    core.happenings.listen(feed.hear)
    return feed


def _lifespan(
    core: Core, sender: Sender, leadership: Leadership, front: McpFront, feed: FlowerFeed | None
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        sender.start()
        if feed is not None:
            feed.start()
        leading = asyncio.create_task(leadership.run())
        try:
            await leadership.is_leader.wait()  # doors open on a roster and open attempts that are known
            async with front.running():
                yield
        finally:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
            await asyncio.to_thread(sender.stop)
            if feed is not None:
                await asyncio.to_thread(feed.stop)
            await core.stores.ledger.close()
            await core.stores.redis.aclose()

    return lifespan

"""Makes every part of the orchestrator once, in the order they need each other.

Stores, then the core that decides, then the doors. `leading.py` says what leading means,
`bootstrap.py` runs it all.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from orchestrator.api import strict_json
from orchestrator.api.app import create_app
from orchestrator.approvals.desk import Approvals
from orchestrator.autoscaler.book.claims import ClaimBook
from orchestrator.autoscaler.book.pool_book import PoolBook
from orchestrator.blobs.disk import DiskBlobs
from orchestrator.core import Core, Stores
from orchestrator.dispatch.affinity import Affinity
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.open_attempts import OpenAttempts
from orchestrator.dispatch.send import Sender
from orchestrator.fleet import Fleet
from orchestrator.front.app import McpFront
from orchestrator.front.grants import GuardFront
from orchestrator.gates import Gates, gates_of
from orchestrator.guarding import RunGuard, guard_of, guardian_of
from orchestrator.happenings import Happenings
from orchestrator.health.circuits import Circuits
from orchestrator.identity.enrolment import Enroller
from orchestrator.identity.keys import Keys
from orchestrator.intake.check import Intake, Limits
from orchestrator.intake.watch import Watch
from orchestrator.leader import Leadership, Proof
from orchestrator.leading import fleet_changed, leadership_of, lifespan_of
from orchestrator.ledger.guest import Guest
from orchestrator.ledger.shelves import KeyRows
from orchestrator.ledger.usage import UsedRows
from orchestrator.ledger.values import Waiting
from orchestrator.limits import api_settings, front_settings, retry_policy, terms_of, url_for_nodes
from orchestrator.oauth import OAuth, oauth_of
from orchestrator.observability.flower_feed import FlowerFeed
from orchestrator.observability.metrics import FleetCollector, Metrics
from orchestrator.outbox import Outbox
from orchestrator.outbox import Sender as Publisher
from orchestrator.policy.desk import PolicyDesk
from orchestrator.pools import Policies, read_pools
from orchestrator.redis_client import ANSWER_S, redis_of
from orchestrator.registry.desk import NodeDesk
from orchestrator.registry.roster import Roster
from orchestrator.registry.shapes import Shapes
from orchestrator.registry.terms import Terms
from orchestrator.scaling import scaling_of
from orchestrator.sealing import keys_of, ledger_of, secrets_of
from orchestrator.seats import made_of, view_of
from orchestrator.settings import OrchestratorSettings
from orchestrator.settling.capsules import Capsules
from orchestrator.settling.doubts import Doubts
from orchestrator.settling.settler import Settler
from orchestrator.settling.streams import NodeStreams
from orchestrator.settling.waiting import as_waiting
from orchestrator.views import Views
from tasks.app import make_app
from tasks.clock import Clock, SteadyClock, SystemClock
from tasks.pool import Strategy
from tasks.redis_clients import sync_client


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """What a caller of `build` works with."""

    app: Starlette
    fleet: Fleet
    core: Core
    leadership: Leadership
    leave: Callable[[], None]
    """Before doors close: another replica may lead, who waits is answered, what runs goes on."""


async def build(
    settings: OrchestratorSettings,
    *,
    address: str,
    follows: Callable[[str | None], None],
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
) -> Orchestrator:
    """Make every part.

    Args:
        settings: as read.
        address: HOST:PORT of its doors, for other replicas.
        follows: told where another replica leads.
        clock: for tests.
        environ: where secrets are that the pools file only names.

    Raises:
        LedgerDown: the database does not answer.
        SettingsError: a file that a setting names is wrong.
    """
    stores = await _stores(settings, clock or SteadyClock(SystemClock()))
    sender = Sender(stores.celery)
    core = core_of(settings, stores, sender, environ=environ)
    views = views_of(core)
    fleet = fleet_of(core, views)
    registry = CollectorRegistry()
    scaling = scaling_of(core, url_for_nodes(settings, address), settings.renew_every_s, environ or {}, registry)
    oauth = oauth_of(settings, address=address, books=stores.ledger.oauth, sealer=stores.keys, clock=stores.clock)
    leadership = leadership_of(settings, core, scaling, oauth, address, follows)
    core.happenings.listen(Metrics(registry).hear)
    registry.register(FleetCollector(nodes=views.nodes, pools=views.pools, backlog=core.dispatcher.backlog))
    gates = gates_of(settings, core, oauth)
    front, guard = _fronts(settings, core, fleet, gates, oauth)
    feed = _flower_feed(settings, core, views)
    app = create_app(
        fleet,
        core.desk,
        core.stores.blobs,
        gates.api,
        replace(api_settings(settings), resource_metadata=oauth.api.metadata_url),
        enrolments=core.enroller,
        scaling=scaling.views,
        money=core.stores.ledger,
        approvals=core.approvals,
        secrets=core.secrets,
        erasure=core.erasure(),
        keys=core.keys,
        challenges=gates.challenges,
        policies=gates.policies,
        oauth=oauth.server,
        registry=registry,
        clock=core.stores.clock,
        extra_routes=[*front.routes(), *guard.routes(), *oauth.routes()],
        lifespan=lifespan_of(core, sender, leadership, front, guard, feed, scaling, oauth),
        leads=core.proof.holds,
        run_grants=RunGuard(core),
    )

    return Orchestrator(app, fleet, core, leadership, partial(_leave, core, leadership, front))


def _leave(core: Core, leadership: Leadership, front: McpFront) -> None:
    front.leave_calls_running()  # an orchestrator that stops is no caller that leaves
    leadership.step_down()
    core.watch.end()


def _fronts(
    settings: OrchestratorSettings, core: Core, fleet: Fleet, gates: Gates, oauth: OAuth
) -> tuple[McpFront, GuardFront]:
    """Both MCP servers; to OAuth they are one resource."""
    wanted, clock = replace(front_settings(settings), resource_metadata=oauth.mcp.metadata_url), core.stores.clock
    front = McpFront(fleet, gates.mcp, wanted, clock, parse=strict_json.parse, approvals=core.approvals)
    return front, guard_of(wanted, core, gates.mcp)


async def _stores(settings: OrchestratorSettings, clock: Clock) -> Stores:
    url = settings.redis_url.get_secret_value()
    keys = keys_of(settings)
    return Stores(
        ledger=await ledger_of(settings, keys, clock),
        redis=redis_of(url),
        celery=make_app(url),
        blobs=DiskBlobs(settings.blob_dir, keys, seals=settings.seal_payloads),
        clock=clock,
        keys=keys,
    )


def core_of(
    settings: OrchestratorSettings, stores: Stores, sender: Publisher, *, environ: Mapping[str, str] | None = None
) -> Core:
    """Everything that decides; nothing here listens or runs yet.

    Args:
        settings: as read.
        stores: as opened.
        sender: publishes deliveries.
        environ: where secrets are that the pools file only names.
    """
    policies = read_pools(settings.pools_file, cloud_dir=settings.cloud_dir, environ=environ)
    roster, attempts = Roster(Shapes(made_of(policies))), OpenAttempts()
    happenings, watch = Happenings(), Watch()
    happenings.listen(watch.hear)
    terms, proof = terms_of(settings), Proof(stores.clock)
    doubts = Doubts(books=stores.ledger, attempts=attempts)
    circuits = _circuits(stores, sender, roster, happenings)
    policy = PolicyDesk(folder=settings.policy_dir, books=UsedRows(stores.ledger), clock=stores.clock)
    dispatcher = _dispatcher(
        settings, stores, sender, terms, roster, policies, attempts, circuits, doubts, happenings, policy.guest_of
    )
    intake = _intake(settings, stores, roster, policies, dispatcher)
    settler = _settler(settings, stores, roster, attempts, dispatcher, doubts, intake, happenings)
    approvals, streams = _speech(stores, roster, attempts, settler, doubts, happenings, proof)
    approvals.on_room, doubts.backlog = dispatcher.credit_returned, dispatcher
    given, guardian = secrets_of(settings, stores, roster.pool_of), guardian_of(settings, stores, policy)
    desk = NodeDesk(
        roster=roster,
        store=stores.ledger,
        attempts=attempts,
        fates=settler,
        terms=terms,
        clock=stores.clock,
        is_late=lambda pool: policies.of(pool).strategy is Strategy.LATE,
        is_doubtful=doubts.has,
        on_change=lambda: fleet_changed(dispatcher, streams),
        on_claim=dispatcher.claimed,
        on_left=partial(_node_gone, attempts=attempts, streams=streams),
        newest=dispatcher.newest,
        answers=approvals.answers_for,
        grants=guardian.news,
        secrets_mark=given.mark,
    )
    circuits.on_change = policy.on_change = dispatcher.fleet_changed
    return Core(
        stores, policies, happenings, watch, roster, attempts, dispatcher, intake, settler, streams, desk, doubts,
        circuits, proof, Enroller(store=stores.ledger, members=desk, clock=stores.clock),
        *_machines(stores, policies), approvals, Keys(store=KeyRows(stores.ledger), clock=stores.clock), policy,
        given, guardian,
    )  # fmt: skip


def _machines(stores: Stores, policies: Policies) -> tuple[ClaimBook, PoolBook]:
    """What is remembered of machines that were ordered, and of pools' sizes."""
    return (
        ClaimBook(books=stores.ledger, clock=stores.clock, draw=secrets.token_bytes, cluster=policies.limits.cluster),
        PoolBook(books=stores.ledger, clock=stores.clock, is_dry=policies.limits.is_dry),
    )


def _speech(  # noqa: PLR0917 - two parts that know each other, and everything they need
    stores: Stores,
    roster: Roster,
    attempts: OpenAttempts,
    settler: Settler,
    doubts: Doubts,
    happenings: Happenings,
    proof: Proof,
) -> tuple[Approvals, NodeStreams]:
    """What nodes ask and say, and what is said to them."""
    approvals = Approvals(
        books=stores.ledger, attempts=attempts, is_doubtful=doubts.has, tell=happenings.tell, clock=stores.clock
    )
    streams = NodeStreams(
        stores.redis,
        settling=settler,
        nodes=roster.names,
        tell=happenings.tell,
        clock=stores.clock,
        leads=proof.holds,
        questions=approvals,
        saved=Capsules(books=stores.ledger, attempts=attempts, blobs=stores.blobs).saved,
    )
    approvals.voice = streams
    happenings.listen(approvals.hear)
    return approvals, streams


def _circuits(stores: Stores, sender: Publisher, roster: Roster, happenings: Happenings) -> Circuits:
    circuits = Circuits(
        incarnation_of=roster.incarnation_of, broker_down=lambda: sender.down_because, clock=stores.clock
    )
    happenings.listen(circuits.hear)
    return circuits


def _dispatcher(  # noqa: PLR0917 - one part, and everything it needs
    settings: OrchestratorSettings,
    stores: Stores,
    sender: Publisher,
    terms: Terms,
    roster: Roster,
    policies: Policies,
    attempts: OpenAttempts,
    circuits: Circuits,
    doubts: Doubts,
    happenings: Happenings,
    guest_of: Callable[[Waiting], Guest | None],
) -> Dispatcher:
    return Dispatcher(
        books=stores.ledger,
        outbox=Outbox(roster=roster, sender=sender, pool_key=terms.pool_key, grace_agents_s=settings.grace_agents_s),
        attempts=attempts,
        affinity=Affinity(),
        build_view=lambda paused: view_of(roster, policies, paused, circuits, stores.clock),
        clock=stores.clock,
        tell=happenings.tell,
        doubt=doubts.note,
        placed=circuits.placed,
        declared=roster.declared,
        guest_of=guest_of,
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
        declared=roster.declared,
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
        books=stores.ledger,
        limits=Limits(
            settings.inline_limit_bytes,
            settings.payload_limit_bytes,
            settings.max_backlog,
            settings.spawn_depth,
            settings.spawn_descendants,
        ),
        clock=stores.clock,
        waiting=dispatcher.waiting,
        has_pool=lambda name: name in roster.pools() or policies.has(name),
    )


def _node_gone(node: str, *, attempts: OpenAttempts, streams: NodeStreams) -> None:
    attempts.forget(node)
    streams.forget_soon(node)


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
        asking=core.approvals.waiting,
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
        doubt=core.doubts.note,
        gate=core.policy,
    )


def _flower_feed(settings: OrchestratorSettings, core: Core, views: Views) -> FlowerFeed | None:
    if not settings.flower_feed:
        return None
    redis = sync_client(settings.redis_url.get_secret_value(), answer_s=ANSWER_S)
    feed = FlowerFeed(core.stores.celery, redis, nodes=views.nodes, clock=core.stores.clock)
    core.happenings.listen(feed.hear)
    return feed

"""Makes every part of the core once, in the order they need each other. `whole.py` opens doors on it."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from functools import partial

from orchestrator.approvals.desk import Approvals
from orchestrator.at_rest import secrets_of, tell_unopened
from orchestrator.audited import accept_of, audit_of
from orchestrator.autoscaler.book.claims import ClaimBook
from orchestrator.autoscaler.book.pool_book import PoolBook
from orchestrator.broker_side import outbox_of, redis_users_of, seals_of
from orchestrator.core import Core, Stores
from orchestrator.dispatch.affinity import Affinity
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.open_attempts import OpenAttempts
from orchestrator.fleet import Fleet
from orchestrator.guarding import guardian_of
from orchestrator.happenings import Happenings
from orchestrator.health.circuits import Circuits
from orchestrator.identity.enrolment import Enroller
from orchestrator.identity.keys import Keys
from orchestrator.intake.check import Intake, Limits
from orchestrator.intake.watch import Watch
from orchestrator.leader import Proof
from orchestrator.leading import fleet_changed
from orchestrator.ledger.guest import Guest
from orchestrator.ledger.shelves import KeyRows
from orchestrator.ledger.usage import UsedRows
from orchestrator.ledger.values import Waiting
from orchestrator.limits import retry_policy, terms_of
from orchestrator.outbox import Outbox
from orchestrator.outbox import Sender as Publisher
from orchestrator.policy.desk import PolicyDesk
from orchestrator.pools import Policies, read_pools
from orchestrator.registry.desk import NodeDesk
from orchestrator.registry.roster import Roster
from orchestrator.registry.shapes import Shapes
from orchestrator.sealing import Seals
from orchestrator.seats import made_of, view_of
from orchestrator.settings import OrchestratorSettings
from orchestrator.settling.capsules import Capsules
from orchestrator.settling.doubts import Doubts
from orchestrator.settling.settler import Settler
from orchestrator.settling.streams import NodeStreams
from orchestrator.settling.waiting import as_waiting
from orchestrator.views import Views
from tasks.pool import Strategy


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
    happenings, watch = _news(stores)
    terms, proof, seals = terms_of(settings), Proof(stores.clock), seals_of(settings, stores, roster)
    doubts, circuits = Doubts(books=stores.ledger, attempts=attempts), _circuits(stores, sender, roster, happenings)
    redis_users = redis_users_of(settings, stores, terms, roster, policies)
    outbox = outbox_of(settings, sender, terms, roster, seals)
    policy = PolicyDesk(folder=settings.policy_dir, books=UsedRows(stores.ledger), clock=stores.clock, tool=roster.tool)
    dispatcher = _dispatcher(stores, outbox, roster, policies, attempts, circuits, doubts, happenings, policy.guest_of)
    intake = _intake(settings, stores, roster, policies, dispatcher)
    settler = _settler(settings, stores, roster, attempts, dispatcher, doubts, intake, happenings)
    approvals, streams = _speech(stores, roster, attempts, settler, doubts, happenings, proof, seals)
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
        seals=seals,
        broker=redis_users,
        answers=approvals.answers_for,
        grants=guardian.news,
        secrets_mark=given.mark,
    )
    doubts.backlog, approvals.on_room = dispatcher, dispatcher.credit_returned
    circuits.on_change = policy.on_change = dispatcher.fleet_changed
    return Core(
        stores, policies, happenings, watch, roster, attempts, dispatcher, intake, settler, streams, desk, doubts,
        circuits, proof, Enroller(store=stores.ledger, members=desk, clock=stores.clock),
        *_machines(stores, policies), approvals, Keys(store=KeyRows(stores.ledger), clock=stores.clock), policy,
        given, audit_of(settings, stores.ledger, stores.clock), redis_users, guardian,
    )  # fmt: skip


def _news(stores: Stores) -> tuple[Happenings, Watch]:
    """What happens, and whoever waits for it."""
    happenings, watch = Happenings(), Watch()
    tell_unopened(stores.ledger, happenings.tell)
    happenings.listen(watch.hear)
    return happenings, watch


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
    seals: Seals,
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
        is_at=attempts.is_at,
        questions=approvals,
        seals=seals,
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
    stores: Stores,
    outbox: Outbox,
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
        outbox=outbox,
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
        circuits=core.circuits,
        asking=core.approvals.waiting,
        clock=core.stores.clock,
    )


def fleet_of(core: Core, views: Views, settings: OrchestratorSettings | None = None) -> Fleet:
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
        accept=accept_of(settings, core),
    )

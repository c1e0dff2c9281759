"""The whole orchestrator, made once: stores, then the core that decides, then what listens, then the doors.

`assembly.py` makes the core, `scaling.py` the autoscaler, `gates.py` what stands at the doors; `leading.py` says what
leading means, `bootstrap.py` runs it all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from orchestrator.api import strict_json
from orchestrator.api.app import create_app
from orchestrator.assembly import core_of, fleet_of, views_of
from orchestrator.at_rest import keys_of, ledger_of
from orchestrator.audit.answers import AuditedAnswers
from orchestrator.blobs.disk import DiskBlobs
from orchestrator.certificates import Certificates
from orchestrator.console.frame import Console
from orchestrator.console.live import Pulse
from orchestrator.console.pages import PAGES
from orchestrator.console.session import Sessions
from orchestrator.core import Core, Stores
from orchestrator.dispatch.send import Sender
from orchestrator.fleet import Fleet
from orchestrator.front.app import McpFront
from orchestrator.front.grants import GuardFront
from orchestrator.gates import Gates, gates_of
from orchestrator.guarding import RunGuard, guard_of
from orchestrator.identity.ca import Authority
from orchestrator.leader import Leadership
from orchestrator.leading import leadership_of, lifespan_of
from orchestrator.limits import api_settings, front_settings, redis_url_of, seal_secret, url_for_nodes
from orchestrator.measuring import Measured, expiries_of, measured_of, watch
from orchestrator.oauth import OAuth, oauth_of
from orchestrator.observability.flower_feed import FlowerFeed
from orchestrator.redis_client import ANSWER_S, redis_of
from orchestrator.refused_calls import RefusedCalls
from orchestrator.scaling import scaling_of
from orchestrator.settings import OrchestratorSettings
from orchestrator.tls_doors import authority_for
from orchestrator.views import Views
from tasks.app import make_app
from tasks.clock import Clock, SteadyClock, SystemClock
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
    authority: Authority | None = None
    """Of nodes' certificates, where doors speak TLS."""


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
    core, sender, views, fleet, measured = _core(settings, stores, environ)
    near, every_s = url_for_nodes(settings, address), settings.renew_every_s
    scaling = scaling_of(core, near, every_s, environ or {}, measured.registry)
    oauth = _oauth(settings, core, address)
    leadership = leadership_of(settings, core, scaling, oauth, address, follows)
    gates = gates_of(settings, core, oauth)
    front, guard = _fronts(settings, core, fleet, gates, oauth, measured)
    authority = authority_for(settings, core.stores.clock)
    watch(measured, core, leadership, lambda: scaling.loop.ended_at_s, expiries_of(settings, core, authority))
    feed, pulse = _flower_feed(settings, core, views), Pulse()
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
        audit=core.audit,
        certificates=_certificates(authority, core),
        registry=measured.registry,
        meter=measured.api,
        objectives=measured.objectives,
        clock=core.stores.clock,
        extra_routes=[*front.routes(), *guard.routes(), *oauth.routes(), *_console(settings, core, pulse)],
        lifespan=lifespan_of(core, sender, leadership, front, guard, feed, scaling, oauth, measured.vitals),
        leads=core.proof.holds,
        run_grants=RunGuard(core),
    )

    return Orchestrator(app, fleet, core, leadership, partial(_leave, core, leadership, front, pulse), authority)


def _core(
    settings: OrchestratorSettings, stores: Stores, environ: Mapping[str, str] | None
) -> tuple[Core, Sender, Views, Fleet, Measured]:
    sender = Sender(stores.celery)
    core = core_of(settings, stores, sender, environ=environ)
    views = views_of(core)
    return core, sender, views, fleet_of(core, views, settings), measured_of(core, views, settings)


def _leave(core: Core, leadership: Leadership, front: McpFront, pulse: Pulse) -> None:
    front.leave_calls_running()  # an orchestrator that stops is no caller that leaves
    leadership.step_down()
    core.watch.end()
    pulse.end()


def _console(settings: OrchestratorSettings, core: Core, pulse: Pulse) -> list[BaseRoute]:
    if not settings.console:
        return []
    clock = core.stores.clock
    core.happenings.listen(pulse.beat)
    sessions = Sessions(seal_secret(settings), idle_s=settings.console_idle_s, clock=clock)
    return Console(PAGES, sessions=sessions, pulse=pulse, clock=clock, version=api_settings(settings).version).routes()


def _fronts(  # noqa: PLR0917 - two doors, and everything they need
    settings: OrchestratorSettings, core: Core, fleet: Fleet, gates: Gates, oauth: OAuth, measured: Measured
) -> tuple[McpFront, GuardFront]:
    """Both MCP servers; to OAuth they are one resource."""
    wanted, clock = replace(front_settings(settings), resource_metadata=oauth.mcp.metadata_url), core.stores.clock
    answers = AuditedAnswers(core.approvals, core.audit)
    front = McpFront(
        RefusedCalls(fleet, core.audit), gates.mcp, wanted, clock, parse=strict_json.parse, approvals=answers,
        measured=measured.mcp,
    )  # fmt: skip
    return front, guard_of(wanted, core, gates.mcp)


def _oauth(settings: OrchestratorSettings, core: Core, address: str) -> OAuth:
    stores = core.stores
    return oauth_of(
        settings,
        address=address,
        books=stores.ledger.oauth,
        sealer=stores.keys,
        clock=stores.clock,
        refused=core.audit.refused,
    )


def _certificates(authority: Authority | None, core: Core) -> Certificates | None:
    if authority is None:
        return None
    return Certificates(authority, roster=core.roster, store=core.stores.ledger, turns=core.desk.turns)


async def _stores(settings: OrchestratorSettings, clock: Clock) -> Stores:
    url, keys = redis_url_of(settings), keys_of(settings)
    return Stores(
        ledger=await ledger_of(settings, keys, clock),
        redis=redis_of(url),
        celery=make_app(url),
        blobs=DiskBlobs(settings.blob_dir, keys, seals=settings.seal_payloads),
        clock=clock,
        keys=keys,
    )


def _flower_feed(settings: OrchestratorSettings, core: Core, views: Views) -> FlowerFeed | None:
    if not settings.flower_feed:
        return None
    redis = sync_client(redis_url_of(settings), answer_s=ANSWER_S)
    feed = FlowerFeed(core.stores.celery, redis, nodes=views.nodes, clock=core.stores.clock)
    core.happenings.listen(feed.hear)
    return feed

"""The whole orchestrator, made once: stores, then the core that decides, then what listens, then the doors.

`assembly.py` makes the core, `scaling.py` the autoscaler, `listeners.py` what hears of everything, `gates.py` what
stands at the doors; `leading.py` says what leading means, `bootstrap.py` runs it all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from starlette.applications import Starlette

from orchestrator.api import strict_json
from orchestrator.api.app import create_app
from orchestrator.assembly import core_of, fleet_of, views_of
from orchestrator.at_rest import keys_of, ledger_of
from orchestrator.audit.answers import AuditedAnswers
from orchestrator.blobs.disk import DiskBlobs
from orchestrator.certificates import Certificates
from orchestrator.console.live import Pulse as LivePages
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
from orchestrator.limits import api_settings, front_settings, redis_url_of, url_for_nodes
from orchestrator.listeners import console_of, flower_feed_of, pulse_of, trace
from orchestrator.measuring import Measured, expiries_of, measured_of, watch
from orchestrator.oauth import OAuth, oauth_of
from orchestrator.redis_client import redis_of
from orchestrator.refused_calls import RefusedCalls
from orchestrator.scaling import Scaling, scaling_of
from orchestrator.settings import OrchestratorSettings
from orchestrator.tls_doors import authority_for
from orchestrator.views import Views
from tasks.app import make_app
from tasks.clock import Clock, SteadyClock, SystemClock
from tasks.otlp import Otlp


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
    spans: Otlp | None = None,
) -> Orchestrator:
    """Make every part.

    Args:
        settings: as read.
        address: HOST:PORT of its doors, for other replicas.
        follows: told where another replica leads.
        clock: for tests.
        environ: where secrets are that the pools file only names.
        spans: where finished spans go; None: none are made.

    Raises:
        LedgerDown: the database does not answer.
        SettingsError: a file that a setting names is wrong.
    """
    stores = await _stores(settings, clock or SteadyClock(SystemClock()))
    core, sender, views, fleet, measured = _core(settings, stores, environ)
    near, every_s = url_for_nodes(settings, address), settings.renew_every_s
    trace(core, spans, measured.registry)
    scaling = scaling_of(core, near, every_s, environ or {}, measured.registry)
    oauth = _oauth(settings, core, address)
    leadership = leadership_of(settings, core, scaling, oauth, address, follows)
    gates = gates_of(settings, core, oauth)
    front, guard = _fronts(settings, core, fleet, gates, oauth, measured)
    authority = _watched(settings, core, leadership, scaling, measured)
    feed, live = flower_feed_of(settings, core, views), LivePages()
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
        **measured.for_api(),
        clock=core.stores.clock,
        extra_routes=[*front.routes(), *guard.routes(), *oauth.routes(), *console_of(settings, core, live)],
        lifespan=lifespan_of(core, sender, leadership, front, guard, feed, scaling, oauth, measured.vitals),
        leads=core.proof.holds,
        run_grants=RunGuard(core),
        pulse=pulse_of(core),
    )

    return Orchestrator(app, fleet, core, leadership, partial(_leave, core, leadership, front, live), authority)


def _core(
    settings: OrchestratorSettings, stores: Stores, environ: Mapping[str, str] | None
) -> tuple[Core, Sender, Views, Fleet, Measured]:
    sender = Sender(stores.celery)
    core = core_of(settings, stores, sender, environ=environ)
    views = views_of(core)
    return core, sender, views, fleet_of(core, views, settings), measured_of(core, views, settings)


def _leave(core: Core, leadership: Leadership, front: McpFront, live: LivePages) -> None:
    front.leave_calls_running()  # an orchestrator that stops is no caller that leaves
    leadership.step_down()
    core.watch.end()
    live.end()


def _watched(
    settings: OrchestratorSettings, core: Core, leadership: Leadership, scaling: Scaling, measured: Measured
) -> Authority | None:
    """The authority of nodes' certificates, whose end is measured like all else that stands or ends."""
    authority = authority_for(settings, core.stores.clock)
    watch(measured, core, leadership, lambda: scaling.loop.ended_at_s, expiries_of(settings, core, authority))
    return authority


def _fronts(  # noqa: PLR0917 - two doors, and everything they need
    settings: OrchestratorSettings, core: Core, fleet: Fleet, gates: Gates, oauth: OAuth, measured: Measured
) -> tuple[McpFront, GuardFront]:
    """Both MCP servers; to OAuth they are one resource."""
    wanted, clock = replace(front_settings(settings), resource_metadata=oauth.mcp.metadata_url), core.stores.clock
    answers = AuditedAnswers(core.approvals, core.audit)
    front = McpFront(
        RefusedCalls(fleet, core.audit, measured.objectives.refused), gates.mcp, wanted, clock,
        parse=strict_json.parse, approvals=answers, measured=measured.mcp,
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
        granted=core.audit.acted,
    )


def _certificates(authority: Authority | None, core: Core) -> Certificates | None:
    if authority is None:
        return None
    core.audit.in_force = dict(authority.key_ids)
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

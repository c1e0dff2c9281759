"""The HTTP API of a real core, as `assembly` makes it, without what listens and runs."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from orchestrator.api.app import create_app
from orchestrator.api.oauth_clients import OAuthClients
from orchestrator.api.ports import Verifier
from orchestrator.api.settings import ApiSettings
from orchestrator.assembly import fleet_of, views_of
from orchestrator.certificates import Certificates
from orchestrator.core import Core
from orchestrator.gates import policy_views
from orchestrator.identity.challenges import Challenges
from orchestrator.identity.doors import Authenticators
from orchestrator.identity.tokens import Tokens, static
from orchestrator.testing.objectives import measuring
from orchestrator.testing.scaling import scale_views


def app_of(
    core: Core,
    operator: str,
    join: str = "the-join-token",
    *,
    certificates: Certificates | None = None,
    oauth: OAuthClients | None = None,
    extra_routes: Sequence[BaseRoute] = (),
    doors: Verifier | None = None,
    settings: ApiSettings | None = None,
) -> Starlette:
    """With the two tokens of a fleet, its API keys and their sessions.

    Nodes need certificates where there are `certificates`; `oauth` is the authorization server, if there is one.
    `doors` says who calls, instead of the two tokens and the keys.
    """
    clock = core.stores.clock
    own = Tokens(
        static(operator, join),
        node_of=core.desk.node_of,
        enrolled=core.enroller.principal,
        needs_certificate=certificates is not None,
    )
    challenges = Challenges(keys=core.keys, clock=clock, names=("127.0.0.1",))
    return create_app(
        fleet_of(core, views_of(core)),
        core.desk,
        core.stores.blobs,
        doors or Authenticators([core.keys, challenges, own]),
        settings or ApiSettings(),
        enrolments=core.enroller,
        scaling=scale_views(clock),
        money=core.stores.ledger,
        approvals=core.approvals,
        secrets=core.secrets,
        erasure=core.erasure(),
        keys=core.keys,
        challenges=challenges,
        policies=policy_views(core),
        oauth=oauth,
        audit=core.audit,
        clock=clock,
        certificates=certificates,
        extra_routes=extra_routes,
        objectives=measuring(core.happenings, clock),
    )

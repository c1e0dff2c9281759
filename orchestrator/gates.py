"""Makes what stands at the doors: who calls, and what is permitted. `assembly.py` makes all else."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core import Core
from orchestrator.identity.challenges import Challenges
from orchestrator.identity.doors import Authenticator, Authenticators
from orchestrator.identity.lockout import Lockout
from orchestrator.identity.tokens import Tokens, static
from orchestrator.identity.watched import Watched
from orchestrator.limits import zones_of
from orchestrator.oauth import OAuth
from orchestrator.policy.explain import PolicyViews
from orchestrator.seats import seats_of
from orchestrator.settings import OrchestratorSettings
from orchestrator.tls_doors import names_of


@dataclass(frozen=True, slots=True)
class Gates:
    """What the doors ask."""

    api: Watched
    mcp: Watched
    """The same credentials, but for OAuth each door has an audience of its own."""
    challenges: Challenges
    policies: PolicyViews


def gates_of(settings: OrchestratorSettings, core: Core, oauth: OAuth) -> Gates:
    """Every kind of credential that is taken, and the policies shown.

    Raises:
        SettingsError: a setting of theirs is wrong.
    """
    challenges, trust = (
        Challenges(keys=core.keys, clock=core.stores.clock, names=names_of(settings)),
        zones_of(settings).trust,
    )
    kinds: list[Authenticator] = [core.keys, challenges, _tokens(settings, core)]
    lockout, clock = Lockout(), core.stores.clock

    def watched(audience: Authenticator) -> Watched:
        return Watched(Authenticators([*kinds, audience], trust), lockout=lockout, audit=core.audit, clock=clock)

    return Gates(
        watched(oauth.at_api),
        watched(oauth.at_mcp),
        challenges,
        policy_views(core),
    )


def _tokens(settings: OrchestratorSettings, core: Core) -> Tokens:
    return Tokens(
        static(settings.token.get_secret_value(), settings.join_token.get_secret_value()),
        node_of=core.desk.node_of,
        enrolled=core.enroller.principal,
        needs_certificate=settings.tls,
    )


def policy_views(core: Core) -> PolicyViews:
    """The policies shown."""
    now_s = core.stores.clock.mono_s
    return PolicyViews(core.policy, core.roster, lambda: seats_of(core.roster, core.circuits, now_s()))

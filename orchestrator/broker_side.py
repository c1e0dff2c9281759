"""Makes what stands between the orchestrator and its broker: the outbox, the seals, the users of Redis."""

from __future__ import annotations

from orchestrator.core import Stores
from orchestrator.limits import seal_secret
from orchestrator.outbox import Outbox, Sender
from orchestrator.pools import Policies
from orchestrator.redis_users import Mode, RedisUsers
from orchestrator.registry.roster import Roster
from orchestrator.registry.terms import Terms
from orchestrator.sealing import Seals
from orchestrator.settings import OrchestratorSettings
from tasks.pool import Strategy


def seals_of(settings: OrchestratorSettings, stores: Stores, roster: Roster) -> Seals:
    """The keys of sealed messages."""
    return Seals(seal_secret(settings), find=roster.find, clock=stores.clock, is_demanded=settings.seal_deliveries)


def outbox_of(settings: OrchestratorSettings, sender: Sender, terms: Terms, roster: Roster, seals: Seals) -> Outbox:
    """Seals and hands to the sender."""
    return Outbox(
        roster=roster,
        sender=sender,
        pool_key=terms.pool_key,
        seals=seals,
        grace_agents_s=settings.grace_agents_s,
        trace_ratio=settings.trace_ratio if settings.otlp_endpoint else None,
    )


def redis_users_of(
    settings: OrchestratorSettings, stores: Stores, terms: Terms, roster: Roster, policies: Policies
) -> RedisUsers:
    """Who may do what in Redis."""
    return RedisUsers(
        Mode(settings.redis_acl),
        seal_secret(settings),
        url=terms.redis_url,
        redis=stores.redis,
        members=roster.members,
        is_late=lambda pool: policies.of(pool).strategy is Strategy.LATE,
    )

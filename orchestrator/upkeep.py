"""The leader's slow loops: what is forgotten, and how often somebody looks. docs/memory.md lists all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.leader import Loop, every
from orchestrator.registry.forget import Forgetting
from orchestrator.retention import Days, Retention
from orchestrator.settings import OrchestratorSettings

if TYPE_CHECKING:
    from orchestrator.core import Core

ENDED_EVERY_S = 600.0
NODES_EVERY_S = 30.0
BLOBS_EVERY_S = 6 * 3600.0


def upkeep(settings: OrchestratorSettings, core: Core) -> list[Loop]:
    """The loops."""
    stores = core.stores
    days = Days(settings.retention_days, settings.retention_dead_days, settings.retention_spend_days)
    retention = Retention(books=stores.ledger, blobs=stores.blobs, days=days, clock=stores.clock)
    nodes = Forgetting(
        roster=core.roster,
        store=stores.ledger,
        attempts=core.attempts,
        on_gone=core.desk.on_left,
        after_s=settings.forget_node_after_s,
        clock=stores.clock,
        has_ended=core.claims.has_ended,
    )
    return [
        every(ENDED_EVERY_S, retention.forget_ended, "retention"),
        every(ENDED_EVERY_S, retention.forget_spend, "spend"),
        every(BLOBS_EVERY_S, retention.forget_blobs, "blobs"),
        every(NODES_EVERY_S, nodes.look, "lost nodes"),
        every(settings.secrets_look_s, core.secrets.look, "secrets"),
    ]

"""AuthGuardian, put together: its book, its door, and what it asks of policies and of the audit."""

from __future__ import annotations

from orchestrator.core import Core, Stores
from orchestrator.front.grants import GuardFront
from orchestrator.grants.book import Book
from orchestrator.grants.guardian import Guardian
from orchestrator.grants.ports import NoAudit, NoPolicy
from orchestrator.grants.types import read_types
from orchestrator.identity.doors import Authenticators
from orchestrator.ledger.grant_shelf import GrantRows
from orchestrator.limits import front_settings
from orchestrator.settings import OrchestratorSettings


def guardian_of(settings: OrchestratorSettings, stores: Stores) -> Guardian:
    """Without policies nothing is granted by policy; without an audit the book is the only record.

    Raises:
        SettingsError: the file of resource types is wrong.
    """
    return Guardian(
        book=Book(store=GrantRows(stores.ledger), clock=stores.clock),
        types=read_types(settings.guard_file),
        policy=NoPolicy(),
        audit=NoAudit(),
        clock=stores.clock,
    )


def guard_of(settings: OrchestratorSettings, core: Core, doors: Authenticators) -> GuardFront:
    """Its door, which hears of every change."""
    guardian = core.guardian
    guard = GuardFront(guardian, doors, front_settings(settings), core.stores.clock, types=guardian.types)
    guardian.on_change = guard.changed
    return guard

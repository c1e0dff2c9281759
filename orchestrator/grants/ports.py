"""What AuthGuardian needs of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from orchestrator.grants.decide import Question, Ruling
from orchestrator.ledger.grant_values import GrantKeyRow, GrantRow


class Store(Protocol):
    """The ledger's two tables."""

    async def save(self, row: GrantRow) -> None: ...
    async def forget(self, grant_id: str) -> None: ...
    async def save_key(self, row: GrantKeyRow) -> None: ...
    async def forget_key(self, key_id: str) -> None: ...


class Policy(Protocol):
    """The fleet's policies."""

    def decide(self, question: Question) -> Ruling:
        """Pure and quick; an error of any kind is in the answer, and is a no."""
        ...


class Audit(Protocol):
    """Where every decision goes."""

    async def note(self, act: str, by: str, tenant: str, about: Mapping[str, object]) -> None:
        """Append one, durably; raises LedgerDown where it cannot, and then no token is handed out."""
        ...


class NoPolicy:
    """Without policies nothing is granted."""

    def decide(self, question: Question) -> Ruling:  # noqa: ARG002 - the port's
        """No."""
        return Ruling(is_allowed=False)


class NoAudit:
    """Nothing keeps a record; the book itself still does."""

    async def note(self, act: str, by: str, tenant: str, about: Mapping[str, object]) -> None:
        """Nothing."""

"""Access tokens that were revoked before they ended. Source: RFC 7009.

By `jti`, in memory and in the ledger; forgotten once the token would have ended anyway.
"""

from __future__ import annotations

from typing import Protocol

from orchestrator.ledger.oauth_values import TOKEN, SpentRow
from tasks.clock import Clock


class RevokedStore(Protocol):
    """The ledger."""

    async def spend(self, row: SpentRow) -> bool: ...
    async def spent(self, kind: str) -> list[SpentRow]: ...


class Revoked:
    """What was revoked, while this orchestrator leads."""

    def __init__(self, *, store: RevokedStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._until: dict[str, float] = {}

    async def restore(self) -> None:
        """This orchestrator leads now. Raises LedgerDown."""
        self._until = {row.id: row.expires_at for row in await self._store.spent(TOKEN)}

    async def add(self, jti: str, until: float) -> None:
        """Refuse it from now on, and until that wall clock. Raises LedgerDown, EpochLost: say it again."""
        await self._store.spend(SpentRow(TOKEN, jti, until))
        now_s = self._clock.wall_s()
        self._until = {one: ends for one, ends in self._until.items() if ends >= now_s} | {jti: until}

    def has(self, jti: str) -> bool:
        """Whether it was."""
        return jti in self._until

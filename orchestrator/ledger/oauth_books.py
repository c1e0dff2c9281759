"""The ledger as the authorization server sees it: its clients, its sealed keys, ids that are spent.

Written by whoever leads, like everything else of the ledger. A file of its own, because the façade is long.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from orchestrator.ledger import oauth_rows
from orchestrator.ledger.oauth_values import ClientRow, SigningKeyRow, SpentRow
from orchestrator.ledger.readers import Reader
from orchestrator.ledger.transaction import Tx
from tasks.clock import Clock

T = TypeVar("T")


class Write(Protocol):
    """One small operation in a transaction."""

    def __call__(self, operation: Callable[[Tx], T], /) -> Awaitable[T]: ...


class Read(Protocol):
    """One question beside the writer."""

    def __call__(self, question: Callable[[Reader], T], /) -> Awaitable[T]: ...


class OAuthBooks:
    """Every method raises LedgerDown, and those that write EpochLost: nothing was written then."""

    def __init__(self, write: Write, read: Read, clock: Clock) -> None:
        self._write, self._read, self._clock = write, read, clock

    async def clients(self) -> list[ClientRow]:
        """Every client, revoked ones too."""
        return await self._read(oauth_rows.clients)

    async def save_client(self, row: ClientRow) -> None:
        """Remember it, replacing what was known under its id."""
        await self._write(lambda tx: oauth_rows.save_client(tx, row))

    async def keys(self) -> list[SigningKeyRow]:
        """Every key, the oldest first."""
        return await self._read(oauth_rows.keys)

    async def save_key(self, row: SigningKeyRow, forget: Sequence[str] = ()) -> None:
        """Remember a key, and forget others in the same transaction."""
        await self._write(lambda tx: oauth_rows.save_key(tx, row, forget))

    async def forget_keys(self, kids: Sequence[str]) -> None:
        """Delete keys."""
        await self._write(lambda tx: oauth_rows.forget_keys(tx, kids))

    async def spend(self, row: SpentRow) -> bool:
        """Spend an id; False where it was spent before."""
        now_s = self._clock.wall_s()
        return await self._write(lambda tx: oauth_rows.spend(tx, row, now_s))

    async def spent(self, kind: str) -> list[SpentRow]:
        """What is spent of one kind."""
        return await self._read(partial(oauth_rows.spent, kind=kind))

"""The book of grants in memory, durable before it counts: rows, public keys, and what nodes are told of both.

Owns the bounds and the forgetting. Refuses to decide, and to know who may see what.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from orchestrator.grants.errors import TooManyGrants
from orchestrator.grants.ports import Store
from orchestrator.ledger.grant_values import GrantKeyRow, GrantRow, GrantState
from tasks.clock import Clock
from tasks.grant import Grant, GrantKey, GrantKeys, GrantNews, Signer

ROWS_MAX = 20_000
"""In all: about 20 MB. What is over goes first, then nothing more is taken."""
OPEN_MAX = 50
"""Pending or active, of one agent."""
TOLD_S = 600.0
"""Nodes hear of a revocation for this long at least, though the grant has expired: a call may still run under it."""
KEEP_S = 30 * 86_400.0
"""What is over is shown so long; the audit keeps it longer."""


class Book:
    """Every request and grant, while this orchestrator leads."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._signer = Signer()
        """Of this process. Its private key is written nowhere, so no backup and no database holds one."""
        self._rows: dict[str, GrantRow] = {}
        self._keys: dict[str, GrantKeyRow] = {}
        self._reader = GrantKeys()
        self.news = GrantNews(version="")
        self._tell()

    def restore(self, rows: Iterable[GrantRow], keys: Iterable[GrantKeyRow]) -> None:
        """This orchestrator leads now: what the ledger has is all there is."""
        self._rows = {row.id: row for row in rows}
        self._keys = {row.id: row for row in keys}
        self._tell()

    def find(self, grant_id: str) -> GrantRow | None:
        """One, of any tenant."""
        return self._rows.get(grant_id)

    def rows(self) -> list[GrantRow]:
        """All, oldest first."""
        return list(self._rows.values())

    def read(self, token: str) -> Grant:
        """What a token says, by the keys that are good. Raises GrantInvalid."""
        return self._reader.read(token, self._clock.wall_s())

    def token_of(self, row: GrantRow, grant: Grant) -> str | None:
        """The token of a granted row; None where the key that signs it went with its process."""
        return self._signer.sign(grant) if row.key == self._signer.key.id else None

    async def key(self) -> str:
        """The id of the key that signs now, known to the ledger before the first grant is."""
        own = self._signer.key
        if own.id not in self._keys:
            row = GrantKeyRow(own.id, own.public, self._clock.wall_s())
            await self._store.save_key(row)
            self._keys[own.id] = row
        return own.id

    async def save(self, row: GrantRow) -> None:
        """Insert or replace one. Durable, then known.

        Raises:
            LedgerDown: nothing changed.
        """
        await self._store.save(row)
        self._rows[row.id] = row
        self._tell()

    async def void(self, row: GrantRow) -> None:
        """Replace one by what allows less: it counts at once, and again after a restart.

        Raises:
            LedgerDown: it counts here and now, and may be good again after a restart: say it again.
        """
        self._rows[row.id] = row
        self._tell()
        await self._store.save(row)

    async def make_room(self, tenant: str, agent: str) -> None:
        """Before a new row.

        Raises:
            TooManyGrants
        """
        now = self._clock.wall_s()
        own = [row for row in self._rows.values() if (row.tenant, row.agent) == (tenant, agent)]
        if sum(not row.is_over(now) and row.state != GrantState.REVOKED for row in own) >= OPEN_MAX:
            raise TooManyGrants(repr(agent), OPEN_MAX)
        if len(self._rows) < ROWS_MAX:
            return
        over = [row for row in self._rows.values() if row.is_over(now)][: ROWS_MAX // 100]
        if not over:
            raise TooManyGrants("the fleet", ROWS_MAX)
        await self._forget(over)

    async def prune(self) -> None:
        """Forget what was over long ago, and keys that sign nothing any more."""
        now = self._clock.wall_s()
        old = [row for row in self._rows.values() if row.is_over(now) and _ended(row) < now - KEEP_S]
        await self._forget(old)
        used = {row.key for row in self._rows.values() if row.expires_at is not None and now < row.expires_at}
        for key in [one for one in self._keys.values() if one.id not in used and one.id != self._signer.key.id]:
            await self._store.forget_key(key.id)
            del self._keys[key.id]
        self._tell()

    async def _forget(self, rows: Iterable[GrantRow]) -> None:
        for row in rows:
            await self._store.forget(row.id)
            self._rows.pop(row.id, None)

    def _tell(self) -> None:
        now = self._clock.wall_s()
        keys = tuple(GrantKey(id=row.id, public=row.public) for _, row in sorted(self._keys.items()))
        revoked = tuple(
            sorted(row.id for row in self._rows.values() if row.state == GrantState.REVOKED and now < _told_until(row))
        )
        if (keys, revoked) == (self.news.keys, self.news.revoked) and self.news.version:
            return
        version = sha256(repr((keys, revoked)).encode()).hexdigest()[:16]
        self.news = GrantNews(version=version, keys=keys, revoked=revoked)
        self._reader = GrantKeys(keys)


def _told_until(row: GrantRow) -> float:
    if row.expires_at is None:
        return 0.0  # it was a request: no token of it was ever given
    return max(row.expires_at, (row.revoked_at or 0.0) + TOLD_S)


def _ended(row: GrantRow) -> float:
    return max(row.asked_at, row.decided_at or 0.0, row.expires_at or 0.0)

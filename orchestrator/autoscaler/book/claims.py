"""The book of NodeClaims: in memory, and in the ledger first.

Owns ids, names and the moves that are allowed. Refuses to know clouds and nodes: who moves a claim
and why is `actuate.py`. Writes are one after the other, so that what is read in memory is what the
ledger has; a write that fails leaves memory as it was.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from orchestrator.autoscaler.book.claim_rows import claim_of, row_of
from orchestrator.autoscaler.errors import ClaimMoveRefused
from orchestrator.autoscaler.values import LIVE, MOVES, ClaimState, NodeClaim, Rung
from orchestrator.ledger.values import ClaimRow
from tasks.clock import Clock
from tasks.errors import NotFound

ID_CHARS = 10
POOL_CHARS = 30
"""Of a pool's name in its machines' names: with the id they fit `tasks.node.NAME_PATTERN` and a host's name."""
BOOTS_KEPT = 20
KEEP_GONE_S = 7 * 86_400.0
FORMER_S = 3600.0
Changed = Any
"""A value for any field of a claim."""


class ClaimBooks(Protocol):
    """The ledger. Its writes refuse a leader that is none any more."""

    async def claims(self) -> list[ClaimRow]: ...
    async def save_claim(self, row: ClaimRow) -> None: ...
    async def forget_claims(self, gone_before: float) -> int: ...


class ClaimBook:
    """Every claim that is kept."""

    def __init__(self, *, books: ClaimBooks, clock: Clock, draw: Callable[[int], bytes], cluster: str) -> None:
        self._books, self._clock, self._draw, self._cluster = books, clock, draw, cluster
        self._claims: dict[str, NodeClaim] = {}
        self._writing = asyncio.Lock()
        self._is_doubtful = False
        """A write ended in an error: the ledger may have it all the same."""

    async def load(self) -> None:
        """What an earlier leader ordered.

        A claim of a release that did not write its cluster has the present one, from now on also in the ledger:
        else it would change its tag with the fleet's next name.

        Raises:
            LedgerDown, EpochLost: nothing is known; nothing may be ordered or ended.
        """
        async with self._writing:
            found = {row.id: claim_of(row) for row in await self._books.claims()}
            for claim in [claim for claim in found.values() if not claim.cluster]:
                found[claim.id] = named = replace(claim, cluster=self._cluster)
                if claim.state is not ClaimState.GONE:
                    await self._books.save_claim(row_of(named))
            self._claims, self._is_doubtful = found, False

    async def resolve(self) -> None:
        """After a write of which nobody knows whether it took, see what the ledger has.

        Raises:
            LedgerDown: it is still not known, so nothing may be ordered.
        """
        if self._is_doubtful:
            await self.load()

    def find(self, claim_id: str) -> NodeClaim | None:
        """One claim, or None."""
        return self._claims.get(claim_id)

    def all(self, pool: str | None = None) -> list[NodeClaim]:
        """Every claim that is kept, those that are gone too."""
        return [claim for claim in self._claims.values() if pool is None or claim.pool == pool]

    def standing(self, pool: str | None = None) -> list[NodeClaim]:
        """Claims that are not gone."""
        return [claim for claim in self.all(pool) if claim.state is not ClaimState.GONE]

    def live(self, pool: str) -> list[NodeClaim]:
        """What counts towards the target."""
        return [claim for claim in self.all(pool) if claim.state in LIVE]

    def pools(self) -> set[str]:
        """Pools with a claim that is not gone."""
        return {claim.pool for claim in self.standing()}

    def clusters(self, provider: str) -> list[str]:
        """Tags that machines of ours carry there, the present one first.

        A fleet that was named anew has the machines of its former name until they are gone, and a list that lags
        may show one of them for a while longer.
        """
        since = self._clock.wall_s() - FORMER_S
        ours = [c for c in self.all() if c.rung.provider == provider]
        former = {c.cluster for c in ours if c.state is not ClaimState.GONE or c.state_at >= since}
        return [self._cluster, *sorted(former - {self._cluster})]

    def has_ended(self, node: str) -> bool:
        """A machine was ordered for it, and is gone for good."""
        found = [claim for claim in self._claims.values() if claim.node == node]
        return bool(found) and all(claim.state is ClaimState.GONE for claim in found)

    def boots_s(self, pool: str) -> list[float]:
        """Order to ready, of the last boots of a pool, oldest first."""
        booted = [(c.ready_at, c.ready_at - c.created_at) for c in self.all(pool) if c.ready_at is not None]
        return [took_s for _, took_s in sorted(booted)[-BOOTS_KEPT:]]

    async def order(
        self,
        pool: str,
        rung: Rung,
        *,
        reason: str,
        expires_at: float,
        price_eur_h: float | None = None,
        billing_s: float = 1.0,
    ) -> NodeClaim:
        """A new claim, durable. Only now may the cloud be asked.

        Raises:
            LedgerDown, EpochLost: nothing may be asked for.
        """
        now, claim_id = self._clock.wall_s(), self._new_id()
        claim = NodeClaim(
            id=claim_id,
            pool=pool,
            node=node_name(pool, claim_id),
            rung=rung,
            state=ClaimState.BOOTING,
            created_at=now,
            state_at=now,
            reason=reason,
            expires_at=expires_at,
            price_eur_h=price_eur_h,
            billing_s=billing_s,
            cluster=self._cluster,
        )
        async with self._writing:
            await self._save(claim)
        return claim

    async def move(self, claim_id: str, to: ClaimState, **changes: Changed) -> NodeClaim:
        """Into another state; a new step begins without failures.

        Raises:
            ClaimMoveRefused: not from where it is.
            LedgerDown, EpochLost: it has not moved.
        """
        async with self._writing:
            claim = self._get(claim_id)
            if to not in MOVES[claim.state]:
                raise ClaimMoveRefused(claim_id, claim.state.value, to.value)
            fresh = {"failures": 0, "state_at": self._clock.wall_s(), **changes}
            return await self._save(replace(claim, state=to, **fresh))

    async def note(self, claim_id: str, **changes: Changed) -> NodeClaim:
        """What was learned; it stays in its state.

        Raises:
            LedgerDown, EpochLost: it was not noted.
        """
        async with self._writing:
            claim = self._get(claim_id)
            changed = replace(claim, **changes)
            return claim if changed == claim else await self._save(changed)

    async def forget(self) -> int:
        """Drop what has been gone for a week; how many.

        Raises:
            LedgerDown: all are kept.
        """
        before = self._clock.wall_s() - KEEP_GONE_S
        async with self._writing:
            forgotten = await self._books.forget_claims(before)
            self._claims = {c.id: c for c in self._claims.values() if not _is_past(c, before)}
        return forgotten

    def _get(self, claim_id: str) -> NodeClaim:
        claim = self._claims.get(claim_id)
        if claim is None:
            raise NotFound("claim", claim_id, list(self._claims))
        return claim

    async def _save(self, claim: NodeClaim) -> NodeClaim:
        was_doubtful, self._is_doubtful = self._is_doubtful, True
        await self._books.save_claim(row_of(claim))
        self._is_doubtful = was_doubtful
        self._claims[claim.id] = claim
        return claim

    def _new_id(self) -> str:
        while True:
            claim_id = base64.b32encode(self._draw(ID_CHARS)).decode().lower()[:ID_CHARS]
            if claim_id not in self._claims:
                return claim_id


def node_name(pool: str, claim_id: str) -> str:
    """Of the machine and its node; a long pool's name is cut, the id tells them apart."""
    return f"{pool[:POOL_CHARS].rstrip('-')}-{claim_id}"


def cost_eur_h(claims: Iterable[NodeClaim]) -> float:
    """What these cost an hour, as far as prices are known; what was never made costs nothing."""
    return sum(c.price_eur_h or 0.0 for c in claims if c.machine_id is not None and c.state is not ClaimState.GONE)


def _is_past(claim: NodeClaim, before: float) -> bool:
    return claim.state is ClaimState.GONE and claim.state_at < before

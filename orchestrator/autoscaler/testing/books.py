"""The ledger's part for the autoscaler, in memory, and what must hold of every row that is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.autoscaler.book.claim_rows import claim_of
from orchestrator.autoscaler.testing.points import Points
from orchestrator.autoscaler.values import LIVE, ClaimState, NodeClaim
from orchestrator.ledger.values import ClaimRow, ScaleLogRow, ScalePoolRow
from tasks.errors import LedgerDown


class MemoryBooks:
    """Satisfies `parts.Books`. `violations` holds what should never have been written."""

    def __init__(
        self,
        points: Points,
        *,
        max_machines: Mapping[str, int],
        exists: Callable[[str], bool],
        why_not_leave: Callable[[str], str | None],
    ) -> None:
        self._points, self._max_machines, self._exists, self._why_not_leave = (
            points,
            max_machines,
            exists,
            why_not_leave,
        )
        self.rows: dict[str, ClaimRow] = {}
        self.pools: dict[str, ScalePoolRow] = {}
        self.log: list[ScaleLogRow] = []
        self.violations: list[str] = []
        self.failing = 0
        """So many writes fail; every other one of them took all the same."""

    def claim(self, claim_id: str) -> NodeClaim:
        """As it was written last."""
        return claim_of(self.rows[claim_id])

    async def claims(self) -> list[ClaimRow]:
        """All, oldest first."""
        await self._points.pass_by()
        return sorted(self.rows.values(), key=lambda row: row.created_at)

    async def save_claim(self, row: ClaimRow) -> None:
        """Checked, then kept.

        Raises:
            LedgerDown: as was ordered by the test.
        """
        await self._points.pass_by()
        if self.failing:
            self.failing -= 1
            if self.failing % 2 == 0:
                self._keep(row)
            raise LedgerDown("the test says so")
        self._keep(row)
        await self._points.pass_by()

    async def forget_claims(self, gone_before: float) -> int:
        """Of those gone."""
        old = [r.id for r in self.rows.values() if r.state == ClaimState.GONE and r.state_at < gone_before]
        for claim_id in old:
            del self.rows[claim_id]
        return len(old)

    async def scale_pools(self) -> list[ScalePoolRow]:
        """All."""
        return list(self.pools.values())

    async def save_scale_pool(self, row: ScalePoolRow) -> None:
        """Whole."""
        self.pools[row.pool] = row

    async def log_scale(self, row: ScaleLogRow) -> None:
        """At the end."""
        await self._points.pass_by()
        self.log.append(row)

    async def forget_scale_log(self, before: float) -> int:
        """Of those older."""
        kept = [row for row in self.log if row.at >= before]
        forgotten, self.log = len(self.log) - len(kept), kept
        return forgotten

    def _keep(self, row: ClaimRow) -> None:
        before, after = self.rows.get(row.id), claim_of(row)
        if before is not None:
            was = claim_of(before)
            if was.told_to_leave and after.state is ClaimState.READY:
                self.violations.append(f"{row.id} was taken back after it was told to leave")
            if after.told_to_leave and not was.told_to_leave and (why := self._why_not_leave(row.id)) is not None:
                self.violations.append(f"{row.id} was told to leave although {why}")
        if after.state is ClaimState.GONE and self._exists(row.id):
            self.violations.append(f"{row.id} is gone in the books, and its machine is there")
        self.rows[row.id] = row
        live = [r.id for r in self.rows.values() if r.pool == row.pool and r.state in LIVE]
        if len(live) > self._max_machines.get(row.pool, 0):
            self.violations.append(f"pool {row.pool} has {len(live)} machines: {live}")

"""Books of money as the API needs them, in memory: what a test puts there."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.ledger.values import Cost, CostsQuery, SpendRow

NOTHING = Cost(None, 0, 0, 0, 0, 0, 0, None, 0, is_estimated=False)


@dataclass
class MemoryMoney:
    """Answers every report alike, and remembers what was asked."""

    rows: list[Cost] = field(default_factory=list)
    total: Cost = NOTHING
    spent: dict[str, list[SpendRow]] = field(default_factory=dict)
    asked: list[CostsQuery] = field(default_factory=list)

    async def costs(self, query: CostsQuery) -> tuple[list[Cost], Cost]:
        """The rows that are there."""
        self.asked.append(query)
        return self.rows[: query.limit], self.total

    async def spend_of(self, invocation_id: str) -> list[SpendRow]:
        """Of one."""
        return self.spent.get(invocation_id, [])

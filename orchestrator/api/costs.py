"""What agents cost: sums by project, model, node, tool or day; and what one Invocation spent.

Owns the form of both. A price that nobody knows is never shown as 0: requests without one are counted.
"""

from __future__ import annotations

from functools import partial

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Money
from orchestrator.api.problems import InvalidBody
from orchestrator.api.reply import Reply, model
from orchestrator.api.sums import Sums
from orchestrator.ledger.values import Cost, CostsBy, CostsQuery, SpendRow
from tasks.clock import Clock
from tasks.invocation import PROJECT_PATTERN
from tasks.scopes import Scope
from tasks.wire_costs import CostsView, CostView

DAY_S, MINUTE_S = 86_400.0, 60.0
DEFAULT_DAYS = 7
FOR_EVER = 1e15
"""Past every time that is booked."""


class CostsAsk(BaseModel):
    """Which costs, and how they are grouped."""

    model_config = ConfigDict(extra="forbid")
    by: CostsBy = Field(CostsBy.PROJECT, description="what is summed up; days are UTC")
    since: float | None = Field(
        None, allow_inf_nan=False, description=f"spent at or after, seconds since the epoch; {DEFAULT_DAYS} days ago"
    )
    until: float | None = Field(None, allow_inf_nan=False, description="spent before, seconds since the epoch")
    project: str | None = Field(None, pattern=f"^{PROJECT_PATTERN.pattern}$", description="of this project alone")
    limit: int = Field(1000, ge=1, le=1000, description="at most so many rows; `total` is of all")


class CostsDoor:
    """One path."""

    def __init__(self, money: Money, clock: Clock) -> None:
        self._money, self._clock = money, clock
        self._sums: Sums[CostsView] = Sums(clock)

    def operations(self) -> tuple[Operation, ...]:
        """Its declaration."""
        return (
            Operation("GET", "/v1/costs", "costs", Scope.COSTS_READ,
                      "What agents and models cost", self.costs,
                      {200: Answer("sums, the dearest first; days in their order", CostsView)}, query=CostsAsk,
                      tag="costs"),
        )  # fmt: skip

    async def costs(self, ask: Ask) -> Reply:
        """GET /v1/costs."""
        asked = ask.query(CostsAsk)
        until = FOR_EVER if asked.until is None else asked.until
        since = min(until, self._clock.wall_s()) - DEFAULT_DAYS * DAY_S if asked.since is None else asked.since
        if since >= until:
            raise InvalidBody([("until", f"must be later than since: {until:.0f} is not after {since:.0f}")])
        query = CostsQuery(asked.by, ask.principal.tenant, since, until, asked.project, asked.limit + 1)
        # of a time that goes on until now the minutes count, not when in this second somebody asked
        span = round((self._clock.wall_s() - since) / MINUTE_S) if asked.until is None else (since, until)
        key = (asked.by, query.tenant, asked.project, asked.limit, span)
        return model(await self._sums.of(key, partial(self._sum, asked, query)))

    async def _sum(self, asked: CostsAsk, query: CostsQuery) -> CostsView:
        rows, total = await self._money.costs(query)
        return CostsView(
            by=asked.by.value,
            since=query.since,
            until=asked.until,
            rows=[_view(row) for row in rows[: asked.limit]],
            total=_view(total),
            is_cut=len(rows) > asked.limit,
        )


def spent(rows: list[SpendRow]) -> list[dict[str, object]]:
    """`SpendView`s as forms."""
    return [
        {
            "fence": row.fence,
            "node": row.node,
            "model": row.spend.model,
            "requests": row.spend.requests,
            "input_tokens": row.spend.input,
            "output_tokens": row.spend.output,
            "cache_read_tokens": row.spend.cache_read,
            "cache_write_tokens": row.spend.cache_write,
            "cost_usd": row.spend.cost_usd,
            "is_estimated": row.spend.is_estimated,
        }
        for row in rows
    ]


def _view(cost: Cost) -> CostView:
    return CostView(
        key=cost.key,
        calls=cost.calls,
        requests=cost.requests,
        input_tokens=cost.input,
        output_tokens=cost.output,
        cache_read_tokens=cost.cache_read,
        cache_write_tokens=cost.cache_write,
        cost_usd=cost.cost_usd,
        unpriced_requests=cost.unpriced_requests,
        is_estimated=cost.is_estimated,
    )

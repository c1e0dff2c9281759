"""`mcpfleet cost`: what agents and models cost, by project, model, node, tool or day.

Also the words in which `mcpfleet show` says what one Invocation spent. A price that nobody knows is said to
be unknown, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from orchestrator.cli.api import Params
from orchestrator.cli.desk import SINCE, JsonFlag, desk_of
from orchestrator.cli.durations import parse_at, when
from orchestrator.cli.exits import BadInput
from orchestrator.cli.screen import Cell, Column
from tasks.wire import SpendView
from tasks.wire_costs import CostsView, CostView

SMALLEST_USD = 0.0001
"""Less is said to be less."""


class Grouping(StrEnum):
    """What is summed up."""

    PROJECT = "project"
    MODEL = "model"
    NODE = "node"
    TOOL = "tool"
    DAY = "day"


ByOption = Annotated[Grouping, typer.Option("--by", "-b", help="What is summed up; days are UTC.")]
SinceOption = Annotated[str, SINCE]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then; now, without it.")]
ProjectOption = Annotated[str | None, typer.Option("--project", "-p", help="Of this project alone.")]


def cost(
    ctx: typer.Context,
    *,
    by: ByOption = Grouping.PROJECT,
    since: SinceOption = "7d",
    until: UntilOption = None,
    project: ProjectOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what agents and models cost."""
    desk = desk_of(ctx)
    now = desk.now()
    from_, to = parse_at(since, now), None if until is None else parse_at(until, now)
    if to is not None and from_ >= to:
        raise BadInput(f"--until {until!r} is not after --since {since!r}")
    params: Params = {"by": by.value, "since": from_, "until": to, "project": project}
    with desk.api() as api:
        view = api.get("/v1/costs", CostsView, params)
    if as_json:
        desk.screen.json(view)
        return
    time = f"{when(from_)} to {'now' if to is None else when(to)}, local time"
    rows = [_row(row, by) for row in view.rows]
    total = [_row(view.total, by, name="in all")] if len(rows) > 1 else []
    desk.screen.table(_columns(by), [*rows, *total], empty=f"nothing was spent on models from {time}")
    if rows:
        cut = "; only the dearest are shown" if view.is_cut else ""
        desk.screen.note(f"[dim]from {time}{cut}[/]")
    if view.total.unpriced_requests:
        missing = f"{_requests(view.total.unpriced_requests)} to models without a price, in no sum"
        desk.screen.note(f"[dim]{missing}: give the nodes' servers files `prices`[/]")


def spent_lines(spent: Sequence[SpendView]) -> list[str]:
    """A line for each model, over all attempts."""
    return [_line(model, [one for one in spent if one.model == model]) for model in _models(spent)]


def usd(cost_usd: float) -> str:
    """`$12.34`, `$0.0123`, `<$0.0001`."""
    if 0 < cost_usd < SMALLEST_USD:
        return f"<${SMALLEST_USD}"
    return f"${cost_usd:,.2f}" if cost_usd >= 1 or cost_usd == 0 else f"${cost_usd:.4f}"


def _requests(count: int) -> str:
    return f"{count:,} request{'' if count == 1 else 's'}"


def _models(spent: Sequence[SpendView]) -> list[str]:
    return list(dict.fromkeys(one.model for one in spent))


def _line(model: str, spent: Sequence[SpendView]) -> str:
    priced = [one.cost_usd for one in spent if one.cost_usd is not None]
    money = _money(
        sum(priced) if priced else None,
        sum(one.requests for one in spent if one.cost_usd is None),
        is_estimated=any(one.is_estimated for one in spent),
    )
    tokens = [
        f"{sum(one.input_tokens for one in spent):,} in",
        f"{sum(one.output_tokens for one in spent):,} out",
        *_if_any("from cache", [one.cache_read_tokens for one in spent]),
        *_if_any("into cache", [one.cache_write_tokens for one in spent]),
    ]
    attempts = len({one.fence for one in spent})
    tail = f", {attempts} attempts" if attempts > 1 else ""
    return f"{money} {model}: {_requests(sum(one.requests for one in spent))}, {', '.join(tokens)}{tail}"


def _if_any(name: str, counts: Sequence[int]) -> list[str]:
    return [f"{sum(counts):,} {name}"] if any(counts) else []


def _money(cost_usd: float | None, unpriced: int, *, is_estimated: bool) -> str:
    about = "~" if is_estimated else ""
    if cost_usd is None:
        return "unknown" if unpriced else usd(0.0)
    return f"{about}{usd(cost_usd)}" + (" + unknown" if unpriced else "")


def _columns(by: Grouping) -> list[Column]:
    first = "DAY (UTC)" if by is Grouping.DAY else by.value.upper()
    numbers = ("CALLS", "REQUESTS", "IN", "OUT", "FROM CACHE", "INTO CACHE", "UNPRICED", "COST")
    return [Column(first), *(Column(name, is_right=True) for name in numbers)]


def _row(cost: CostView, by: Grouping, name: str | None = None) -> list[Cell]:
    nothing = "(none)" if by is Grouping.PROJECT else ""
    counts = (
        cost.calls,
        cost.requests,
        cost.input_tokens,
        cost.output_tokens,
        cost.cache_read_tokens,
        cost.cache_write_tokens,
    )
    money = _money(cost.cost_usd, cost.unpriced_requests, is_estimated=cost.is_estimated)
    unpriced = f"{cost.unpriced_requests:,}" if cost.unpriced_requests else ""
    return [name or cost.key or nothing, *(f"{count:,}" for count in counts), unpriced, money]

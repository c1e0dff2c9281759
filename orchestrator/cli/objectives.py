"""`mcpfleet objectives`: what the fleet promises, what it measured of that, and what is left of the error budget."""

from __future__ import annotations

import typer

from orchestrator.cli.desk import JsonFlag, desk_of
from orchestrator.cli.durations import when
from orchestrator.cli.screen import Cell, Column
from tasks.wire_objectives import ObjectivesView, ObjectiveView

HALF_SPENT = 0.5
NOTHING = "no samples"


def objectives(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the service level objectives and what is left of their error budgets."""
    desk = desk_of(ctx)
    with desk.api() as api:
        view = api.get("/v1/objectives", ObjectivesView)
    if as_json:
        desk.screen.json(view)
        return
    columns = [
        Column("OBJECTIVE"),
        Column("TARGET", is_right=True),
        Column("MEASURED", is_right=True),
        Column("TIME", is_right=True),
        Column("SAMPLES", is_right=True),
        Column("BAD", is_right=True),
        Column("BUDGET LEFT", is_right=True),
        Column("BURN 1H", is_right=True),
        Column("PROMISE", is_wide=True),
    ]
    desk.screen.table(columns, [_row(one) for one in view.items], empty="this orchestrator promises nothing")
    desk.screen.note(f"[dim]measured by this orchestrator since {when(view.since)}, local time[/]")


def _row(one: ObjectiveView) -> list[Cell]:
    seconds = "" if one.measured_s is None else f"{one.measured_s * 1000:,.0f} ms"
    burn = "" if one.burn_rate_1h is None else f"{one.burn_rate_1h:.1f}x"
    return [
        one.name,
        _percent(one.target),
        NOTHING if one.measured is None else _percent(one.measured),
        seconds,
        f"{one.samples:,}",
        f"{one.bad:,}" if one.bad else "",
        _left(one),
        burn,
        one.title,
    ]


def _percent(share: float) -> str:
    """As many digits as tell 99.9 from 99.95."""
    return f"{share * 100:.3f}".rstrip("0").rstrip(".") + " %"


def _left(one: ObjectiveView) -> str:
    if one.budget_left is None:
        return ""
    word = "" if one.budget_left >= HALF_SPENT else " !" if one.budget_left >= 0 else " spent"
    return f"{one.budget_left * 100:,.0f} %{word}"

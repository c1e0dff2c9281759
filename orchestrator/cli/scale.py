"""`mcpfleet scale …`: how many machines there are and why, what would be, and the size by hand."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from orchestrator.cli.api import Params
from orchestrator.cli.changes import changes_of
from orchestrator.cli.desk import JsonFlag, desk_of
from orchestrator.cli.durations import parse_at, parse_s, took, when
from orchestrator.cli.exits import BadInput
from orchestrator.cli.scale_shown import (
    show_explained,
    show_fleet,
    show_machines,
    show_replay,
    turning_points,
)
from tasks.scale_wire import MachineView, OverrideView, ScaleLogView, ScalePlanView, ScaleReplayView, ScaleView

LOOK_BACK_S = 3600.0
LOG_LIMIT = 1000

scale = typer.Typer(invoke_without_command=True, help="How many machines there are, why, and what would be.")
PoolName = Annotated[str, typer.Argument(metavar="POOL", help="As `mcpfleet scale` shows it.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A field of the pool's policy as it would be; repeatable."),
]
StrategyOption = Annotated[str | None, typer.Option("--strategy", help="slo or threshold.")]


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


@scale.callback()
def status(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the pools that are sized: machines, cost, and the last reason."""
    if ctx.invoked_subcommand is not None:
        return
    desk = desk_of(ctx)
    with desk.api() as api:
        view = api.get("/v1/scale", ScaleView)
    if as_json:
        desk.screen.json(view)
    else:
        show_fleet(desk, view)


@scale.command()
def machines(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List the machines that were ordered, those lately gone too."""
    desk = desk_of(ctx)
    with desk.api() as api:
        found = list(api.pages("/v1/scale/claims", MachineView))
    if as_json:
        desk.screen.json(found)
    else:
        show_machines(desk, found)


@scale.command()
def explain(
    ctx: typer.Context,
    pool: PoolName,
    *,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="The decision of then: 14:05, 2026-11-21T14:05, 20m ago.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="Every change since then: 2h, 1d.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say why a pool has the size it has, or had."""
    desk = desk_of(ctx)
    if at is not None and since is not None:
        raise BadInput("give --at or --since, not both")
    now = desk.now()
    until = now if at is None else parse_at(at, now)
    from_ = now - parse_s(since) if since is not None else until - LOOK_BACK_S
    limit, end = LOG_LIMIT if since else 1, None if at is None else until
    with desk.api() as api:
        params: Params = {"pool": pool, "since": from_, "until": end, "limit": limit}
        found = list(api.pages("/v1/scale/log", ScaleLogView, params))
    if as_json:
        desk.screen.json(found)
        return
    if not found:
        desk.screen.note(f"[dim]nothing was decided about {escape(pool)} between {when(from_)} and {when(until)}[/]")
    for view in turning_points(found) if since else found[-1:]:
        show_explained(desk, view.decision, view.seen)


@scale.command()
def plan(
    ctx: typer.Context,
    pool: Annotated[str | None, typer.Argument(metavar="[POOL]", help="All that are sized, without one.")] = None,
    *,
    set_: SetOption = None,
    strategy: StrategyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what would be decided now. Changes nothing."""
    desk = desk_of(ctx)
    body = {"pool": pool, "changes": changes_of(set_ or [], strategy)}
    with desk.api() as api:
        page = api.send("POST", "/v1/scale/plan", body)
    found = [ScalePlanView.model_validate(item) for item in _items(page)]
    if as_json:
        desk.screen.json(found)
        return
    if not found:
        desk.screen.note("[dim]no pool was looked at yet; ask again in a minute[/]")
    for view in found:
        show_explained(desk, view.decision, view.seen, verb="would have")


@scale.command()
def replay(
    ctx: typer.Context,
    pool: PoolName,
    *,
    since: Annotated[str, typer.Option("--since", help="How far back: 2h, 24h, 7d.")] = "24h",
    set_: SetOption = None,
    strategy: StrategyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what another policy would have decided of what was seen. Changes nothing."""
    desk = desk_of(ctx)
    body = {"pool": pool, "since": desk.now() - parse_s(since), "changes": changes_of(set_ or [], strategy)}
    with desk.api() as api:
        view = api.post("/v1/scale/replay", ScaleReplayView, body)
    if as_json:
        desk.screen.json(view)
    else:
        show_replay(desk, view)


@scale.command("set")
def set_size(
    ctx: typer.Context,
    pool: PoolName,
    target: Annotated[int, typer.Argument(metavar="N", min=0, help="Machines.")],
    *,
    for_: Annotated[str, typer.Option("--for", help="Until it expires: 30m, 2h, 1d.")],
    as_json: JsonFlag = False,
) -> None:
    """Decide a pool's size by hand, for a while. Limits and budget hold all the same."""
    desk = desk_of(ctx)
    with desk.api() as api:
        body = {"pool": pool, "target": target, "for_s": parse_s(for_)}
        view = OverrideView.model_validate(api.send("PUT", "/v1/scale/override", body))
    if as_json:
        desk.screen.json(view)
        return
    left = took(view.until - desk.now())
    desk.screen.note(
        f"[green]✓[/] {escape(pool)} shall have {view.target}, within its limits, until {when(view.until)} "
        f"(for {left}); undo: mcpfleet scale unset {escape(pool)}"
    )


@scale.command()
def unset(ctx: typer.Context, pool: PoolName, as_json: JsonFlag = False) -> None:
    """Let the policy decide again."""
    desk = desk_of(ctx)
    with desk.api() as api:
        api.send("DELETE", "/v1/scale/override", params={"pool": pool})
    if as_json:
        desk.screen.json({"pool": pool, "override": None})
    else:
        desk.screen.note(f"[green]✓[/] the policy of {escape(pool)} decides again")


@scale.command("dry-run")
def dry_run(
    ctx: typer.Context,
    switch: Annotated[Switch, typer.Argument(metavar="on|off")],
    as_json: JsonFlag = False,
) -> None:
    """Decide and say, but order and end nothing; or act again. Holds over restarts."""
    desk, is_dry = desk_of(ctx), switch is Switch.ON
    with desk.api() as api:
        api.send("POST", "/v1/scale/dry-run", {"is_dry": is_dry})
    if as_json:
        desk.screen.json({"is_dry": is_dry})
    elif is_dry:
        desk.screen.note("[yellow]‖[/] decisions are shown, not carried out; undo: mcpfleet scale dry-run off")
    else:
        desk.screen.note("[green]▶[/] decisions are carried out")


def _items(page: object) -> list[object]:
    return list(page["items"]) if isinstance(page, dict) else []

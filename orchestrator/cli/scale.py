"""`mcpfleet scale …`: how many machines there are and why, what would be, and the size by hand."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

from orchestrator.cli.api import Api, Params
from orchestrator.cli.changes import changes_of
from orchestrator.cli.desk import JsonFlag, desk_of
from orchestrator.cli.durations import parse_at, parse_s, took, when
from orchestrator.cli.exits import BadInput
from orchestrator.cli.scale_shown import (
    show_explained,
    show_fleet,
    show_machines,
    show_nothing,
    show_replay,
    turning_points,
)
from tasks.scale_wire import (
    OVERRIDE_MAX_S,
    MachineView,
    OverrideView,
    ScaleLogView,
    ScalePlanView,
    ScalePoolView,
    ScaleReplayView,
    ScaleView,
)

LOOK_BACK_S = 3600.0
DAY_S = 86_400
_NEGATIVE = re.compile(r"-\d+")
LOG_LIMIT = 1000

scale = typer.Typer(invoke_without_command=True, help="How many machines there are, why, and what would be.")
PoolName = Annotated[str, typer.Argument(metavar="POOL", help="As `mcpfleet scale` shows it.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A field of the pool's policy as it would be; repeatable."),
]
SinceOption = typer.Option("--since", metavar="TIME", help="2h, 7d; 14:05; 2026-11-01 is local time.")


class Strategy(StrEnum):
    """As `[pools.<name>.scale]` names them."""

    SLO = "slo"
    THRESHOLD = "threshold"


StrategyOption = Annotated[Strategy | None, typer.Option("--strategy", metavar="slo|threshold")]


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


class Counting(TyperCommand):
    """A command whose words are counts: `-1` is a wrong one, not an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - its type is private to typer
        """As typer does, after that."""
        for word in args:
            if _NEGATIVE.fullmatch(word):
                raise BadInput(f"N is {word}: write 0 machines or more")
        return super().parse_args(ctx, args)


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
    since: Annotated[str | None, SinceOption] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say why a pool has the size it has, or had; with --since, every change since then."""
    desk = desk_of(ctx)
    if at is not None and since is not None:
        raise BadInput("give --at or --since, not both")
    now = desk.now()
    until = now if at is None else parse_at(at, now)
    from_ = until - LOOK_BACK_S if since is None else _past(since, now)
    limit, end = LOG_LIMIT if since else 1, None if at is None else until
    with desk.api() as api:
        params: Params = {"pool": pool, "since": from_, "until": end, "limit": limit}
        found = list(api.pages("/v1/scale/log", ScaleLogView, params))
        earlier = [] if found else list(api.pages("/v1/scale/log", ScaleLogView, {**params, "since": None, "limit": 1}))
    if as_json:
        desk.screen.json(found)
        return
    if not found:
        show_nothing(desk, pool, from_, until, earlier[-1].decision.at if earlier else None)
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
    since: Annotated[str, SinceOption] = "24h",
    set_: SetOption = None,
    strategy: StrategyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what another policy would have decided of what was seen. Changes nothing."""
    desk = desk_of(ctx)
    body = {"pool": pool, "since": _past(since, desk.now()), "changes": changes_of(set_ or [], strategy)}
    with desk.api() as api:
        view = api.post("/v1/scale/replay", ScaleReplayView, body)
    if as_json:
        desk.screen.json(view)
    else:
        show_replay(desk, view)


@scale.command("set", cls=Counting)
def set_size(
    ctx: typer.Context,
    pool: PoolName,
    target: Annotated[int, typer.Argument(metavar="N", min=0, help="Machines.")],
    *,
    for_: Annotated[str, typer.Option("--for", help="Until it expires: 30m, 2h, 1d; at most 30d.")],
    as_json: JsonFlag = False,
) -> None:
    """Decide a pool's size by hand, for a while. Limits and budget hold all the same."""
    desk, for_s = desk_of(ctx), parse_s(for_)
    if not 0 < for_s <= OVERRIDE_MAX_S:
        raise BadInput(f"--for is {for_!r}: write more than 0s and at most {OVERRIDE_MAX_S // DAY_S}d")
    with desk.api() as api:
        body = {"pool": pool, "target": target, "for_s": for_s}
        view = OverrideView.model_validate(api.send("PUT", "/v1/scale/override", body))
        known = None if as_json else _pool(api, pool)
    if as_json:
        desk.screen.json(view)
        return
    left = took(view.until - desk.now())
    desk.screen.note(
        f"[green]✓[/] {escape(pool)} shall have {view.target}, within its limits, until {when(view.until)} "
        f"(for {left}); undo: mcpfleet scale unset {escape(pool)}"
    )
    if known is not None and not known.min_machines <= view.target <= known.max_machines:
        limit = "max_machines" if view.target > known.max_machines else "min_machines"
        held = known.max_machines if view.target > known.max_machines else known.min_machines
        desk.screen.note(f"[yellow]![/] {limit} is {held}: that is what {escape(pool)} gets")


@scale.command()
def unset(ctx: typer.Context, pool: PoolName, as_json: JsonFlag = False) -> None:
    """Let the policy decide again."""
    desk = desk_of(ctx)
    with desk.api() as api:
        before = _pool(api, pool)
        api.send("DELETE", "/v1/scale/override", params={"pool": pool})
    if as_json:
        desk.screen.json({"pool": pool, "override": None})
    elif before is not None and before.override is None:
        desk.screen.note(f"[dim]{escape(pool)} had no size by hand: its policy decides, as before[/]")
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
        draining = 0 if as_json or not is_dry else _draining(api.get("/v1/scale", ScaleView))
    if as_json:
        desk.screen.json({"is_dry": is_dry})
    elif is_dry:
        desk.screen.note("[yellow]‖[/] decisions are shown, not carried out; undo: mcpfleet scale dry-run off")
        if draining:
            machines = (
                "1 machine is draining and stays" if draining == 1 else f"{draining} machines are draining and stay"
            )
            desk.screen.note(f"[yellow]![/] {machines} so: nothing new, not ended, not taken back until then")
    else:
        desk.screen.note("[green]▶[/] decisions are carried out")


def _past(text: str, now: float) -> float:
    at = parse_at(text, now)
    if at >= now:
        raise BadInput(f"--since is {text!r}, which is not in the past: write 2h, 7d or 14:05")
    return at


def _pool(api: Api, name: str) -> ScalePoolView | None:
    return next((pool for pool in api.get("/v1/scale", ScaleView).pools if pool.pool == name), None)


def _draining(view: ScaleView) -> int:
    return sum(pool.machines.get("draining", 0) for pool in view.pools)


def _items(page: object) -> list[object]:
    return list(page["items"]) if isinstance(page, dict) else []

"""`mcpfleet ps, show, why, cancel, retry, result`: what was called, and what became of it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from orchestrator.cli import paint
from orchestrator.cli.answer import show_answer
from orchestrator.cli.api import Api, Params, listed
from orchestrator.cli.call import Detach, Output, Wait, see_through
from orchestrator.cli.desk import Desk, IdArgument, IdsArgument, JsonFlag, LimitOption, desk_of, full_id
from orchestrator.cli.durations import ago, parse_s, took
from orchestrator.cli.exits import Exit, of_error
from orchestrator.cli.history import show_explanation, show_history
from orchestrator.cli.screen import Cell, Column, table_of
from orchestrator.cli.shortid import short
from orchestrator.cli.watch import follow
from tasks.errors import FleetError
from tasks.invocation import TERMINAL, State
from tasks.wire import ExplainView, InvocationView

REFRESH_S = 1.0
PAGE_MAX = 500
_COLUMNS = [
    Column("ID"),
    Column("TOOL", is_wide=True),
    Column("PROJECT"),
    Column("STATE"),
    Column("NODE"),
    Column("TRIES", is_right=True),
    Column("AGE", is_right=True),
    Column("TOOK", is_right=True),
]

AllFlag = Annotated[bool, typer.Option("--all", "-a", help="Ended ones too.")]
ProjectFilter = Annotated[str | None, typer.Option("--project", "-p")]
ToolFilter = Annotated[str | None, typer.Option("--tool", "-t", metavar="SERVER.TOOL")]
StateFilter = Annotated[list[State] | None, typer.Option("--state", "-s", help="Repeatable.")]
NodeFilter = Annotated[str | None, typer.Option("--node")]
WatchFlag = Annotated[
    bool, typer.Option("--watch", "-w", help="Draw again every second; with --json, a line per change.")
]
FollowFlag = Annotated[bool, typer.Option("--follow", "-f", help="Its events as they come; with --json, one per line.")]


def ps(
    ctx: typer.Context,
    *,
    all_states: AllFlag = False,
    project: ProjectFilter = None,
    tool: ToolFilter = None,
    state: StateFilter = None,
    node: NodeFilter = None,
    limit: LimitOption = 20,
    watch: WatchFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """List invocations, newest first: those that have not ended, or all."""
    desk = desk_of(ctx)
    states = list(state) if state else [] if all_states else [s for s in State if s not in TERMINAL]
    params: Params = {"project": project, "tool": tool, "node": node, "state": states, "limit": min(limit, PAGE_MAX)}
    with desk.api() as api:
        if watch and as_json:
            _stream(desk, api, params, limit)
        elif watch and desk.screen.is_person:
            _watch(desk, api, params, limit)
        elif as_json:
            desk.screen.json(_newest(api, params, limit))
        else:
            empty = (
                "nothing was called yet"
                if all_states
                else "nothing is waiting or running; `mcpfleet ps --all` shows what ended"
            )
            desk.screen.table(_COLUMNS, _rows(desk, _newest(api, params, limit)), empty=empty)


def show(
    ctx: typer.Context, invocation: IdArgument, follow_events: FollowFlag = False, as_json: JsonFlag = False
) -> None:
    """Show one invocation: its state, its attempts, its answer."""
    desk = desk_of(ctx)
    with desk.api() as api:
        wanted = full_id(api, invocation)
        if follow_events and as_json:
            for event in api.events(wanted):
                desk.screen.json_line(event)
            return
        view = api.invocation(wanted)
        if follow_events:
            view = follow(desk, api, view, wait_s=None)
    if as_json:
        desk.screen.json(view)
    else:
        show_history(desk, view)


def why(ctx: typer.Context, invocation: IdArgument, as_json: JsonFlag = False) -> None:
    """Say why it waits, why it went to this node, or why it was refused."""
    desk = desk_of(ctx)
    with desk.api() as api:
        view: ExplainView = api.explain(full_id(api, invocation))
    if as_json:
        desk.screen.json(view)
    else:
        show_explanation(desk, view)


def result(
    ctx: typer.Context, invocation: IdArgument, wait: Wait = "0", output: Output = None, as_json: JsonFlag = False
) -> int:
    """Print the answer of an invocation; the status is what `call` would have given."""
    desk = desk_of(ctx)
    with desk.api() as api:
        view = api.invocation(full_id(api, invocation))
        wait_s = parse_s(wait or "0")
        if view.state not in TERMINAL and wait_s > 0:
            view = follow(desk, api, view, wait_s=wait_s)
    return show_answer(desk, view, output=output, as_json=as_json)


def cancel(ctx: typer.Context, invocations: IdsArgument, as_json: JsonFlag = False) -> int:
    """Cancel invocations; a running one is told to stop."""
    desk = desk_of(ctx)
    status: int = Exit.OK
    done: list[InvocationView] = []
    with desk.api() as api:
        for word in invocations:
            try:
                view = api.act(full_id(api, word), "cancel")
            except FleetError as error:
                desk.screen.error(error.message)
                status = max(status, of_error(error))
                continue
            done.append(view)
            if not as_json:
                _say_cancelled(desk, view)
    if as_json:
        desk.screen.json(done)
    return status


def retry(
    ctx: typer.Context,
    *,
    invocation: IdArgument,
    wait: Wait = None,
    output: Output = None,
    detach: Detach = False,
    as_json: JsonFlag = False,
) -> int:
    """Call it again as a new invocation, linked to the old one."""
    desk = desk_of(ctx)
    with desk.api() as api:
        old = full_id(api, invocation)
        view = api.act(old, "replay")
        if not as_json:
            desk.screen.note(f"[dim]{short(old)} is called again as[/] {short(view.id)}")
        wait_s = None if wait is None else parse_s(wait)
        return see_through(desk, api, view, wait_s=wait_s, detach=detach, output=output, as_json=as_json)


def _say_cancelled(desk: Desk, view: InvocationView) -> None:
    name = f"{short(view.id)} [dim]{escape(view.tool)}[/]"
    if view.state is State.CANCELLED:
        desk.screen.note(f"[green]✓[/] {name} is cancelled")
    elif view.state in TERMINAL:
        desk.screen.note(f"[dim]·[/] {name} had {view.state} already; nothing to cancel")
    else:
        desk.screen.note(f"[green]✓[/] {name} is {view.state} on {escape(view.node or '?')}, which is told to stop")


def _newest(api: Api, params: Params, limit: int) -> list[InvocationView]:
    return list(listed(api.pages("/v1/invocations", InvocationView, params), limit))


def _rows(desk: Desk, views: list[InvocationView]) -> list[list[Cell]]:
    now = desk.now()
    return [
        [
            short(view.id),
            paint.tool(view.tool),
            view.project or "",
            Text("asks", "yellow") if view.approvals else paint.state(view.state),
            view.node or "",
            str(view.tries),
            ago(view.accepted_at, now),
            took(view.ended_at - view.accepted_at) if view.ended_at else "",
        ]
        for view in views
    ]


def _watch(desk: Desk, api: Api, params: Params, limit: int) -> None:
    with Live(console=desk.screen.out, auto_refresh=False, screen=False) as live:
        while True:
            live.update(table_of(_COLUMNS, _rows(desk, _newest(api, params, limit))), refresh=True)
            desk.sleep(REFRESH_S)


def _stream(desk: Desk, api: Api, params: Params, limit: int) -> None:
    seen: dict[str, InvocationView] = {}
    while True:
        views = _newest(api, params, limit)
        for view in reversed(views):
            if seen.get(view.id) != view:
                desk.screen.json_line(view)
        seen = {view.id: view for view in views}
        desk.sleep(REFRESH_S)

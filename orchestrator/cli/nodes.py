"""`mcpfleet nodes, node, pools, queues, pause, resume`: the machines and what flows to them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.text import Text

from orchestrator.cli import paint
from orchestrator.cli.api import Api
from orchestrator.cli.desk import Desk, JsonFlag, desk_of
from orchestrator.cli.durations import parse_s, took
from orchestrator.cli.exits import Exit, Refused, of_error
from orchestrator.cli.screen import Cell, Column
from tasks.invocation import Lane
from tasks.node import NodeState
from tasks.scale_wire import EnrolmentView
from tasks.wire import BacklogView, NodeView, PoolView, QueueView


class Kind(StrEnum):
    """What can be paused."""

    QUEUE = "queue"
    POOL = "pool"
    PROJECT = "project"


node = typer.Typer(no_args_is_help=True, help="Take one node out of service, or back; let one in, or out.")
NodeName = Annotated[str, typer.Argument(metavar="NAME", help="As `mcpfleet nodes` shows it.")]
KindArgument = Annotated[Kind, typer.Argument(metavar="queue|pool|project")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME")]


def nodes(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List the nodes: lease, load, capabilities."""
    desk = desk_of(ctx)
    with desk.api() as api:
        found = list(api.pages("/v1/nodes", NodeView))
    if as_json:
        desk.screen.json(found)
        return
    columns = [
        Column("NODE"),
        Column("POOL"),
        Column("STATE"),
        Column("LEASE", is_right=True),
        Column("TOOLS"),
        Column("AGENTS"),
        Column("CPU", is_right=True),
        Column("MEM", is_right=True),
        Column("CAPABILITIES", is_wide=True),
    ]
    desk.screen.table(
        columns, [_node_row(desk, view) for view in found], empty="no node has joined; `mcpfleet-worker run` starts one"
    )
    for view in found:
        for server, why in [*view.unhealthy.items(), *view.circuits.items()]:
            where = f"server {server} of {view.name}" if server else f"node {view.name}"
            desk.screen.note(f"[yellow]![/] {escape(where)} is passed by: {escape(why)}")
        for server, said in view.notes.items():
            desk.screen.note(f"[yellow]![/] server {escape(server)} of {escape(view.name)}: {escape(said)}")


@node.command()
def cordon(ctx: typer.Context, name: NodeName, as_json: JsonFlag = False) -> None:
    """Place nothing new on it; what it runs goes on."""
    _set_state(ctx, name, NodeState.CORDONED, "gets nothing new; what it runs goes on", as_json=as_json)


@node.command()
def uncordon(ctx: typer.Context, name: NodeName, as_json: JsonFlag = False) -> None:
    """Place calls on it again."""
    _set_state(ctx, name, NodeState.ACTIVE, "takes calls again", as_json=as_json)


@node.command()
def drain(ctx: typer.Context, name: NodeName, as_json: JsonFlag = False) -> None:
    """Hand back what it has not started, finish the rest, leave."""
    _set_state(
        ctx, name, NodeState.DRAINING, "hands back what it has not started and leaves when it is done", as_json=as_json
    )


@node.command()
def enrol(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the node that is to join.")],
    *,
    pool: Annotated[str, typer.Option("--pool", help="The pool it joins.")],
    ttl: Annotated[str, typer.Option("--ttl", help="How long the token is good for, unused: 30m, 1h, 2d.")] = "1h",
    as_json: JsonFlag = False,
) -> None:
    """Print a one-time token with which a new node joins under this name."""
    desk = desk_of(ctx)
    with desk.api() as api:
        view = api.post("/v1/enrolments", EnrolmentView, {"name": name, "pool": pool, "ttl_s": parse_s(ttl)})
    if as_json:
        desk.screen.json(view)
        return
    desk.screen.line(view.token)
    left = took(view.expires_at - desk.now())
    desk.screen.note(
        f"[green]✓[/] good once, for node [bold]{escape(view.name)}[/] of pool {escape(view.pool)}, within {left}: "
        "start it with MCPFLEET_NODE_ENROL_TOKEN set to this"
    )
    if view.is_rotation:
        desk.screen.note("[dim]  the credential that it has works until this is used[/]")


@node.command()
def revoke(ctx: typer.Context, name: NodeName, as_json: JsonFlag = False) -> None:
    """Void its credential and token, and end its membership now."""
    desk = desk_of(ctx)
    with desk.api() as api:
        api.send("DELETE", f"/v1/enrolments/{quote(name, safe='')}")
    if as_json:
        desk.screen.json({"name": name, "is_revoked": True})
    else:
        desk.screen.note(
            f"[green]✓[/] {escape(name)} is out: it cannot join again, and what it ran has the fate of a lost node's"
        )


def pools(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List the pools."""
    desk = desk_of(ctx)
    with desk.api() as api:
        found = list(api.pages("/v1/pools", PoolView))
    if as_json:
        desk.screen.json(found)
        return
    columns = [
        Column("POOL"),
        Column("STRATEGY"),
        Column("NODES", is_right=True),
        Column("TOOLS"),
        Column("AGENTS"),
        Column("WAITING", is_right=True),
        Column(""),
        Column("CAPABILITIES", is_wide=True),
    ]
    rows: list[list[Cell]] = [
        [
            Text(view.name, "bold"),
            view.strategy,
            str(view.nodes),
            _meter(desk, view.outstanding, view.slots, Lane.TOOLS),
            _meter(desk, view.outstanding, view.slots, Lane.AGENTS),
            str(view.waiting),
            paint.paused(view.is_paused),
            " ".join(view.capabilities),
        ]
        for view in found
    ]
    desk.screen.table(columns, rows, empty="no pool yet: a pool is there when a node joins it")


def queues(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List the Celery queues, and what waits before them."""
    desk = desk_of(ctx)
    with desk.api() as api:
        found = list(api.pages("/v1/queues", QueueView))
        backlog = api.get("/v1/backlog", BacklogView)
    if as_json:
        desk.screen.json(
            {"queues": [view.model_dump(mode="json") for view in found], "backlog": backlog.model_dump(mode="json")}
        )
        return
    columns = [
        Column("QUEUE", is_wide=True),
        Column("POOL"),
        Column("NODE"),
        Column("LANE"),
        Column("DEPTH", is_right=True),
        Column(""),
    ]
    rows: list[list[Cell]] = [
        [view.name, view.pool, view.node or "any", view.lane, str(view.depth_msgs), paint.paused(view.is_paused)]
        for view in found
    ]
    desk.screen.table(columns, rows, empty="no queues: no node has joined")
    _say_backlog(desk, backlog)


def pause(ctx: typer.Context, kind: KindArgument, name: NameArgument, as_json: JsonFlag = False) -> None:
    """Release nothing more to a queue or pool, or of a project."""
    _pause(ctx, kind, name, is_paused=True, as_json=as_json)


def resume(ctx: typer.Context, kind: KindArgument, name: NameArgument, as_json: JsonFlag = False) -> None:
    """Release again."""
    _pause(ctx, kind, name, is_paused=False, as_json=as_json)


def _pause(ctx: typer.Context, kind: Kind, name: str, *, is_paused: bool, as_json: bool) -> None:
    desk = desk_of(ctx)
    body = {"kind": kind, "name": name, "is_paused": is_paused}
    with desk.api() as api:
        api.send("POST", "/v1/pauses", body)
        is_known = not is_paused or as_json or _is_here(api, kind, name)
    if as_json:
        desk.screen.json(body)
    elif is_paused:
        desk.screen.note(f"[yellow]‖[/] {kind} {escape(name)} is paused; undo: mcpfleet resume {kind} {escape(name)}")
        if not is_known:
            desk.screen.note(f"[yellow]  no {kind} of that name is here now: `mcpfleet {kind}s` lists them[/]")
    else:
        desk.screen.note(f"[green]▶[/] {kind} {escape(name)} runs again")


def _is_here(api: Api, kind: Kind, name: str) -> bool:
    """Whether there is such a queue or pool now. One that comes later is paused all the same; projects have no list."""
    match kind:
        case Kind.POOL:
            return any(view.name == name for view in api.pages("/v1/pools", PoolView))
        case Kind.QUEUE:
            return any(view.name == name for view in api.pages("/v1/queues", QueueView))
        case _:
            return True


def _set_state(ctx: typer.Context, name: str, state: NodeState, words: str, *, as_json: bool) -> None:
    desk = desk_of(ctx)
    with desk.api() as api:
        try:
            view = api.post(f"/v1/nodes/{name}/state", NodeView, {"state": state})
        except Refused as refused:
            if of_error(refused) is not Exit.NOT_FOUND:
                raise
            known = f"{refused.message}; mcpfleet nodes lists those that are joined"
            raise Refused(known, status=refused.status, code=refused.problem_code) from refused
    if as_json:
        desk.screen.json(view)
    else:
        desk.screen.note(f"[green]✓[/] {escape(view.name)} is {view.state}: {words}")


def _node_row(desk: Desk, view: NodeView) -> list[Cell]:
    return [
        Text(view.name, "bold"),
        view.pool,
        paint.node_state(view.state),
        took(view.lease_left_s) if view.lease_left_s > 0 else Text("over", "red"),
        _meter(desk, view.outstanding, view.slots, Lane.TOOLS),
        _meter(desk, view.outstanding, view.slots, Lane.AGENTS),
        f"{view.cpu:.0%}",
        f"{view.memory:.0%}",
        " ".join(view.capabilities),
    ]


def _meter(desk: Desk, outstanding: dict[Lane, int], slots: dict[Lane, int], lane: Lane) -> Text:
    return paint.meter(outstanding.get(lane, 0), slots.get(lane, 0), has_bar=desk.screen.is_roomy)


def _say_backlog(desk: Desk, backlog: BacklogView) -> None:
    oldest = f", the oldest for {took(backlog.oldest_wait_s)}" if backlog.waiting else ""
    desk.screen.line(
        f"ledger: {backlog.waiting} waiting{oldest}, {backlog.delayed} for later, {backlog.outstanding} at nodes"
    )
    for project, count in sorted(backlog.by_project.items(), key=lambda item: -item[1])[:10]:
        desk.screen.line(f"  {count:>6}  {project or '(no project)'}")
    if backlog.paused_projects:
        desk.screen.line(f"paused projects: {', '.join(backlog.paused_projects)}")

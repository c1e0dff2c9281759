"""`mcpfleet tools`: what the fleet can do, and how to call it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from orchestrator.cli import paint
from orchestrator.cli.desk import Desk, JsonFlag, desk_of
from orchestrator.cli.durations import took
from orchestrator.cli.schema import example, fields_of
from orchestrator.cli.screen import Cell, Column, clean
from tasks.wire import ToolView

NameArgument = Annotated[str | None, typer.Argument(metavar="[SERVER.TOOL]", help="Show one tool and its arguments.")]
SearchOption = Annotated[str | None, typer.Option("--search", "-s", metavar="TEXT", help="In names and descriptions.")]


def tools(
    ctx: typer.Context, name: NameArgument = None, search: SearchOption = None, as_json: JsonFlag = False
) -> None:
    """List the fleet's tools, or show one."""
    desk = desk_of(ctx)
    with desk.api() as api:
        if name is not None and "." in name:
            _show(desk, api.get(f"/v1/tools/{name}", ToolView), as_json=as_json)
            return
        found = [view for view in api.pages("/v1/tools", ToolView) if _matches(view, search, name)]
    if as_json:
        desk.screen.json(found)
        return
    _list(desk, found, is_filtered=bool(search or name))


def _matches(view: ToolView, search: str | None, server: str | None) -> bool:
    if server is not None and view.name.partition(".")[0] != server:
        return False
    words = (search or "").lower().split()
    text = f"{view.name} {view.title or ''} {view.description or ''}".lower()
    return all(word in text for word in words)


def _list(desk: Desk, found: list[ToolView], *, is_filtered: bool) -> None:
    is_narrow = desk.screen.is_person and not desk.screen.is_roomy  # then what it does says more than where
    columns = [
        Column("TOOL"),
        *([] if is_narrow else [Column("POOLS")]),
        Column("NODES", is_right=True),
        Column("SAFE"),
        Column("WHAT IT DOES", is_wide=True),
    ]
    rows: list[list[Cell]] = [
        [
            paint.tool(view.name),
            *([] if is_narrow else [",".join(view.pools)]),
            str(view.nodes),
            Text("yes", "green") if view.is_safe else Text("no", "dim"),
            _first_line(view),
        ]
        for view in found
    ]
    why = (
        "no tool matches; `mcpfleet tools` lists all"
        if is_filtered
        else "no node has joined yet; `mcpfleet nodes` shows who is there"
    )
    desk.screen.table(columns, rows, empty=why)
    if rows and desk.screen.is_person:
        desk.screen.note(f"[dim]{len(rows)} tools · mcpfleet tools {escape(found[0].name)}[/]")


def _first_line(view: ToolView) -> str:
    text = (view.description or view.title or "").strip()
    return " ".join(text.split("\n\n")[0].split())


def _show(desk: Desk, view: ToolView, *, as_json: bool) -> None:
    if as_json:
        desk.screen.json(view)
        return
    show = desk.screen.show
    head = paint.tool(view.name)
    if view.title:
        head.append(f"  {clean(view.title)}", "dim")
    show(head)
    if view.description:
        show(Text(clean(view.description.strip())))
    show("")
    show(Text(_facts(view), "dim"))
    schema = view.definition.get("inputSchema") or {}
    columns = [Column("ARGUMENT"), Column("TYPE"), Column("DEFAULT"), Column("WHAT", is_wide=True, is_wrapped=True)]
    rows: list[list[Cell]] = [
        [
            Text(f"{field.name}{'*' if field.is_required else ''}", "bold" if field.is_required else ""),
            field.type,
            field.default,
            field.description,
        ]
        for field in fields_of(schema)
    ]
    show("")
    desk.screen.table(columns, rows, empty="takes no arguments")
    if desk.screen.is_person and any(field.is_required for field in fields_of(schema)):
        desk.screen.note("[dim]* must be given[/]")
    show("")
    desk.screen.line(example(view.name, schema))


def _facts(view: ToolView) -> str:
    policy = view.policy.retry
    retry = f", {policy.attempts} tries" if policy else ""
    safe = "safe to repeat" if view.is_safe else "not safe to repeat after it may have started"
    where = f"{view.nodes} node{'s' if view.nodes != 1 else ''} in {', '.join(view.pools) or 'no pool'}"
    loss = f" · on node loss: {view.policy.on_node_loss}" if view.policy.on_node_loss else ""
    return f"{where} · lane {view.lane} · one attempt may take {took(view.timeout_s)}{retry} · {safe}{loss}"

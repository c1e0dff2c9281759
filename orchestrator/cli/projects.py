"""`mcpfleet project`: erase what the fleet keeps of one."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer
from rich.markup import escape

from orchestrator.cli.desk import JsonFlag, desk_of
from orchestrator.cli.exits import BadInput
from tasks.erasure_wire import ErasureView

project = typer.Typer(no_args_is_help=True, help="What the fleet keeps of a project.")


@project.command()
def erase(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; there is no way back.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Erase its ended calls, results, blobs, capsules and secrets; say what is left, and why."""
    if not yes:
        raise BadInput(f"this erases all that the fleet keeps of {name!r}, for ever; say it with --yes")
    desk = desk_of(ctx)
    with desk.api() as api:
        view = ErasureView.model_validate(api.send("DELETE", f"/v1/projects/{quote(name, safe='')}"))
    if as_json:
        desk.screen.json(view)
        return
    desk.screen.note(
        f"[green]✓[/] of [bold]{escape(view.project)}[/] are gone: {view.calls} calls, {view.blobs} blobs, "
        f"{view.secrets} secrets"
    )
    if view.still_open:
        desk.screen.note(f"[yellow]![/] {view.still_open} have not ended: cancel them, then say this again")
    for one in view.kept:
        desk.screen.note(f"[dim]  left: {escape(one)}[/]")

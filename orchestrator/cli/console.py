"""`mcpfleet console`: where the fleet's pages are."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer
from rich.markup import escape

from orchestrator.cli.desk import desk_of

OpenFlag = Annotated[bool, typer.Option("--open", help="Open it in this machine's browser.")]


def console(ctx: typer.Context, open_it: OpenFlag = False) -> None:
    """Print the address of the web console, and say what to log in with."""
    desk = desk_of(ctx)
    target = desk.target()
    url = f"{target.url}/console"
    desk.screen.line(url)
    where = "that MCPFLEET_TOKEN gives" if target.source == "MCPFLEET_URL" else f'"token" in {target.source}'
    desk.screen.note(f"[dim]log in with an API key, or with the token {escape(where)}[/]")
    if open_it:
        webbrowser.open(url)

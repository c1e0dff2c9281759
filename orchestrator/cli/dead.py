"""`mcpfleet dead`: what ended badly, kept until it is replayed or discarded."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from orchestrator.cli import paint
from orchestrator.cli.api import Api, Params, listed
from orchestrator.cli.desk import JsonFlag, LimitOption, desk_of
from orchestrator.cli.durations import ago
from orchestrator.cli.exits import BadInput
from orchestrator.cli.screen import Cell, Column
from orchestrator.cli.shortid import find, is_full, short
from tasks.wire import DeadLetterView, DiscardView, InvocationView

ALL = 100_000
"""More dead letters than a person wants to discard at once."""
PAGE_MAX = 500
SET_MAX = 1000
"""Ids that one request may name."""

dead = typer.Typer(no_args_is_help=True, help="Dead letters: what ended badly, and doing it again.")
ReasonFilter = Annotated[str | None, typer.Option("--reason", help="Only this reason, e.g. retries_exhausted.")]
ToolFilter = Annotated[str | None, typer.Option("--tool", help="Only this tool.")]
ProjectFilter = Annotated[str | None, typer.Option("--project", help="Only of this project.")]
IdsOptional = Annotated[list[str] | None, typer.Argument(metavar="[ID]…", help="Ids, or their last characters.")]
AllFlag = Annotated[bool, typer.Option("--all", "-a", help="Every dead letter.")]


@dead.command("list")
def list_dead(
    ctx: typer.Context,
    *,
    reason: ReasonFilter = None,
    tool: ToolFilter = None,
    project: ProjectFilter = None,
    limit: LimitOption = 50,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters, newest first."""
    desk = desk_of(ctx)
    with desk.api() as api:
        found = _letters(api, limit, {"reason": reason, "tool": tool, "project": project})
    if as_json:
        desk.screen.json(found)
        return
    columns = [
        Column("ID"),
        Column("TOOL"),
        Column("PROJECT"),
        Column("REASON"),
        Column("AGE", is_right=True),
        Column("REPLAYED"),
        Column("ERROR", is_wide=True),
    ]
    now = desk.now()
    rows: list[list[Cell]] = [
        [
            short(letter.id),
            paint.tool(letter.tool),
            letter.project or "",
            Text(letter.reason, "red"),
            ago(letter.ended_at, now),
            short(letter.replayed_as) if letter.replayed_as else "",
            letter.error.message if letter.error else letter.ending,
        ]
        for letter in found
    ]
    desk.screen.table(columns, rows, empty="no dead letters")


@dead.command()
def replay(
    ctx: typer.Context, invocations: IdsOptional = None, all_letters: AllFlag = False, as_json: JsonFlag = False
) -> None:
    """Call dead letters again, each as a new invocation linked to the old."""
    desk = desk_of(ctx)
    with desk.api() as api:
        body = {"ids": _ids(api, invocations, all_letters=all_letters)}
        answer = api.send("POST", "/v1/dead-letters:replay", body)
    views = [InvocationView.model_validate(item) for item in _items(answer)]
    if as_json:
        desk.screen.json(views)
        return
    for view in views:
        desk.screen.note(f"[green]✓[/] {short(view.replay_of or '')} is called again as [bold]{short(view.id)}[/]")
    desk.screen.note(f"[dim]{len(views)} replayed; mcpfleet ps shows them[/]")


@dead.command()
def discard(
    ctx: typer.Context, invocations: IdsOptional = None, all_letters: AllFlag = False, as_json: JsonFlag = False
) -> None:
    """Forget dead letters; their invocations stay in the history."""
    desk = desk_of(ctx)
    with desk.api() as api:
        ids = _ids(api, invocations, all_letters=all_letters)
        if ids is None:
            ids = [letter.id for letter in _letters(api, ALL)]
        count = 0
        for start in range(0, len(ids), SET_MAX):
            body = {"ids": ids[start : start + SET_MAX]}
            count += api.post("/v1/dead-letters:discard", DiscardView, body).discarded
    if as_json:
        desk.screen.json({"discarded": count})
    else:
        desk.screen.note(f"[green]✓[/] {count} discarded")


def _letters(api: Api, limit: int, where: Params | None = None) -> list[DeadLetterView]:
    params = {**(where or {}), "limit": min(limit, PAGE_MAX)}
    return list(listed(api.pages("/v1/dead-letters", DeadLetterView, params), limit))


def _ids(api: Api, words: list[str] | None, *, all_letters: bool) -> list[str] | None:
    """None: every one of them."""
    if bool(words) == all_letters:
        raise BadInput("name the dead letters, or say --all; `mcpfleet dead list` shows them")
    if not words:
        return None
    known: list[str] = []
    if not all(is_full(word) for word in words):
        known = [letter.id for letter in _letters(api, ALL)]
    return [word if is_full(word) else find(word, known) for word in words]


def _items(answer: object) -> list[object]:
    if isinstance(answer, dict):
        answer = answer.get("items", [])
    return list(answer) if isinstance(answer, list) else []

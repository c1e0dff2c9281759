"""`mcpfleet keys, whoami`: API keys, who holds them, and their successors.

A key is printed once, on standard output, alone; everything else about it goes to standard error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.text import Text

from orchestrator.cli.desk import Desk, JsonFlag, desk_of
from orchestrator.cli.durations import ago, parse_s, took
from orchestrator.cli.exits import BadInput, Refused
from orchestrator.cli.screen import Cell, Column
from orchestrator.cli.settings import is_private
from tasks.identity_wire import IssuedKeyView, KeyView, WhoAmIView
from tasks.wire import Page

NEVER = "never"
NOT_DUE = "key_not_due"
CREDENTIALS = {"static": "the fleet's own token (MCPFLEET_TOKEN)"}
"""What the audit log calls them, in words."""

keys = typer.Typer(no_args_is_help=True, help="API keys: who may come in, as what, from where, until when.")
KeyArgument = Annotated[str, typer.Argument(metavar="ID", help="As `mcpfleet keys list` shows it.")]


def whoami(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Show who this command line is to the fleet, and what it may do."""
    desk = desk_of(ctx)
    with desk.api() as api:
        view = api.get("/v1/whoami", WhoAmIView)
    if as_json:
        desk.screen.json(view)
        return
    desk.screen.line(f"{view.id} of tenant {view.tenant}, as {' and '.join(view.roles)}")
    if view.credential:
        desk.screen.hung("by   ", CREDENTIALS.get(view.credential, view.credential), "dim")
    desk.screen.hung("may  ", " ".join(view.scopes) or "nothing", "dim")


@keys.command("list")
def list_keys(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List the API keys of your tenant; of all, for who runs the fleet."""
    desk = desk_of(ctx)
    with desk.api() as api:
        found = list(api.pages("/v1/keys", KeyView))
    if as_json:
        desk.screen.json(found)
        return
    columns = [
        Column("ID"),
        Column("NAME", is_wide=True),
        Column("TENANT"),
        Column("IS"),
        Column("ROLES"),
        Column("EXPIRES", is_right=True),
        Column("USED", is_right=True),
        Column("FROM"),
        Column("BY"),
    ]
    now = desk.now()
    empty = "no API key yet; `mcpfleet keys create` makes one"
    desk.screen.table(columns, [_row(view, now) for view in found], empty=empty)


@keys.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="For people: what it is used for.")],
    *,
    role: Annotated[
        list[str], typer.Option("--role", "-r", help="admin, operator, developer, agent or auditor; may be repeated.")
    ],
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="Only this of what the roles allow; may be repeated.")
    ] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Your own when left out.")] = None,
    principal: Annotated[
        str | None, typer.Option("--principal", help="Whom it stands for; its own id when left out.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="For policies; may be repeated.")] = None,
    network: Annotated[
        list[str] | None, typer.Option("--network", help="From where it may be used, as CIDR; may be repeated.")
    ] = None,
    expires: Annotated[str, typer.Option("--expires", help="30d, 12h, or never.")] = "30d",
    public_key: Annotated[
        str | None,
        typer.Option("--public-key", help="Ed25519, base64url: the key signs challenges instead of being shown."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make an API key and print it, once."""
    desk = desk_of(ctx)
    body = {
        "name": name,
        "principal": principal,
        "tenant": tenant,
        "roles": role,
        "scopes": scope or None,
        "groups": group or [],
        "networks": network or [],
        "public_key": public_key,
        "lifetime_s": None if expires == NEVER else parse_s(expires),
    }
    with desk.api() as api:
        view = api.post("/v1/keys", IssuedKeyView, body)
    _show_issued(desk, view, as_json=as_json)


@keys.command()
def rotate(
    ctx: typer.Context,
    key_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="An admin rotates any key by its id.")] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="A file with a key: traded when it is due, and replaced. For a daily timer."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key's successor; both work for up to three days."""
    desk = desk_of(ctx)
    if (key_id is None) == (file is None):
        raise BadInput("give either the ID of a key, or --file with the key itself")
    if file is not None:
        _rotate_file(desk, file, as_json=as_json)
        return
    with desk.api() as api:
        view = api.post(f"/v1/keys/{quote(key_id or '', safe='')}/rotate", IssuedKeyView)
    _show_issued(desk, view, as_json=as_json)


@keys.command()
def revoke(ctx: typer.Context, key_id: KeyArgument, as_json: JsonFlag = False) -> None:
    """Void a key at once, the sessions that it opened, and the successors that its holder made."""
    desk = desk_of(ctx)
    with desk.api() as api:
        said = api.send("DELETE", f"/v1/keys/{quote(key_id, safe='')}")
    gone = [view.id for view in Page[KeyView].model_validate(said).items]
    if as_json:
        desk.screen.json({"revoked": gone})
    else:
        desk.screen.note(f"[green]✓[/] {escape(' and '.join(gone))}: no door opens any more")


def _rotate_file(desk: Desk, file: Path, *, as_json: bool) -> None:
    try:
        key, is_safe = file.read_text().strip(), is_private(file)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--file {file}: {error}") from error
    if not is_safe:
        raise BadInput(f"--file {file} can be read by others: chmod 600 it, and revoke the key if they may have")
    with desk.api(token=key) as api:
        try:
            view = api.post("/v1/keys:rotate", IssuedKeyView)
        except Refused as error:
            if error.problem_code != NOT_DUE:
                raise
            desk.screen.note(error.message)
            return
    _replace(file, view.key or "")
    if as_json:
        desk.screen.json(view.model_copy(update={"key": None}))
        return
    desk.screen.note(f"[green]✓[/] {escape(str(file))} has its successor {view.id} now; {_until(desk, view)}")


def _replace(file: Path, key: str) -> None:
    """Whole or not at all: whoever reads it meanwhile has the old one, which still works."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(f"{key}\n")
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)


def _show_issued(desk: Desk, view: IssuedKeyView, *, as_json: bool) -> None:
    if as_json:
        desk.screen.json(view)
        return
    if view.key is None:
        desk.screen.line(view.id)
        desk.screen.note(
            f"[green]✓[/] key {view.id} signs challenges as {escape(view.principal)}; {_until(desk, view)}"
        )
        return
    desk.screen.line(view.key)
    desk.screen.note(
        f"[green]✓[/] key {view.id} for [bold]{escape(view.principal)}[/] of tenant {escape(view.tenant)}, as "
        f"{' and '.join(view.roles)}; {_until(desk, view)}. It is not shown again."
    )


def _until(desk: Desk, view: KeyView) -> str:
    return "it does not expire" if view.expires_at is None else f"good for {took(view.expires_at - desk.now())}"


def _row(view: KeyView, now: float) -> list[Cell]:
    left = NEVER if view.expires_at is None else took(view.expires_at - now) if view.expires_at > now else "over"
    style = "red" if left == "over" else "yellow" if view.due_at is not None and now >= view.due_at else ""
    return [
        Text(view.id, "bold"),
        view.name,
        view.tenant,
        view.principal,
        " ".join(view.roles) + ("" if view.scopes is None else f" ({' '.join(view.scopes)})"),
        Text(left, style),
        NEVER if view.used_at is None else ago(view.used_at, now),
        view.used_from or "",
        view.created_by,
    ]

"""`mcpfleet oauth client …, oauth keys …`: clients of the built-in authorization server, and its signing keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.text import Text

from orchestrator.cli.desk import Desk, JsonFlag, desk_of
from orchestrator.cli.durations import parse_s, took
from orchestrator.cli.screen import Cell, Column
from tasks.errors import InvalidCall
from tasks.oauth_wire import OAuthClientView, OAuthKeysView

oauth = typer.Typer(no_args_is_help=True, help="The built-in authorization server: its clients and its keys.")
client = typer.Typer(no_args_is_help=True, help="Clients that get tokens by client credentials.")
keys = typer.Typer(no_args_is_help=True, help="Keys that sign access tokens.")
oauth.add_typer(client, name="client")
oauth.add_typer(keys, name="keys")

ClientId = Annotated[str, typer.Argument(metavar="CLIENT_ID", help="As `mcpfleet oauth client list` shows it.")]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key", help="Its public key, one JWK as JSON, for private_key_jwt; else it gets a secret."),
]


@client.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="For people.")],
    *,
    role: Annotated[list[str], typer.Option("--role", help="admin, operator, developer, agent or auditor; repeat it.")],
    tenant: Annotated[str | None, typer.Option("--tenant", help="Your own where it is absent.")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="The most that it may ask for; repeat it. Else all of its roles'."),
    ] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="For policies; repeat it.")] = None,
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Register a client; its secret is shown once."""
    desk = desk_of(ctx)
    body = {
        "name": name,
        "tenant": tenant,
        "roles": role,
        "scopes": scope or None,
        "groups": group or [],
        "jwk": _jwk(key),
    }
    with desk.api() as api:
        view = api.post("/v1/oauth/clients", OAuthClientView, body)
    _show_secret(desk, view, as_json=as_json)


@client.command(name="list")
def list_(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List the clients."""
    desk = desk_of(ctx)
    with desk.api() as api:
        found = list(api.pages("/v1/oauth/clients", OAuthClientView))
    if as_json:
        desk.screen.json(found)
        return
    columns = [
        Column("CLIENT"),
        Column("NAME"),
        Column("TENANT"),
        Column("ROLES"),
        Column("SCOPES", is_wide=True),
        Column("BY"),
        Column("AGE", is_right=True),
        Column(""),
    ]
    desk.screen.table(columns, [_row(desk, view) for view in found], empty="no client is registered")


@client.command()
def revoke(ctx: typer.Context, client_id: ClientId, as_json: JsonFlag = False) -> None:
    """Give it no token any more, and refuse those that it has, at once."""
    desk = desk_of(ctx)
    with desk.api() as api:
        api.send("DELETE", f"/v1/oauth/clients/{quote(client_id, safe='')}")
    if as_json:
        desk.screen.json({"client_id": client_id, "is_revoked": True})
    else:
        desk.screen.note(f"[green]✓[/] {escape(client_id)} is out: its tokens are refused from now on")


@client.command()
def rotate(
    ctx: typer.Context,
    client_id: ClientId,
    *,
    overlap: Annotated[
        str, typer.Option("--overlap", help="The old secret is good for so long beside the new: 1h.")
    ] = "0s",
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Give it another secret, shown once, or take another public key."""
    desk = desk_of(ctx)
    body = {"overlap_s": parse_s(overlap), "jwk": _jwk(key)}
    with desk.api() as api:
        view = api.post(f"/v1/oauth/clients/{quote(client_id, safe='')}/rotate", OAuthClientView, body)
    _show_secret(desk, view, as_json=as_json)


@keys.command(name="rotate")
def rotate_keys(
    ctx: typer.Context,
    *,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Forget the old keys at once: every token they signed is refused.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Sign with a new key from now on."""
    desk = desk_of(ctx)
    with desk.api() as api:
        view = api.post("/v1/oauth/keys/rotate", OAuthKeysView, {"withdraw": withdraw})
    if as_json:
        desk.screen.json(view)
        return
    rest = "the others are gone, and their tokens are refused" if withdraw else "the others go with their last token"
    desk.screen.note(f"[green]✓[/] {escape(view.kid)} signs from now on; {rest}")


def _show_secret(desk: Desk, view: OAuthClientView, *, as_json: bool) -> None:
    if as_json:
        desk.screen.json(view)
        return
    desk.screen.line(f"client_id      {view.client_id}")
    if view.client_secret is None:
        desk.screen.note(f"[green]✓[/] {escape(view.name)} signs its assertions with its key")
        return
    desk.screen.line(f"client_secret  {view.client_secret}")
    desk.screen.note(f"[green]✓[/] {escape(view.name)}, tenant {escape(view.tenant)}: this secret is not shown again")


def _row(desk: Desk, view: OAuthClientView) -> list[Cell]:
    return [
        Text(view.client_id, "bold"),
        view.name,
        view.tenant,
        " ".join(view.roles),
        "all of its roles'" if view.scopes is None else " ".join(view.scopes),
        "key" if view.authentication == "private_key_jwt" else "secret",
        took(desk.now() - view.created_at),
        Text("revoked", "red") if view.revoked_at is not None else "",
    ]


def _jwk(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidCall(f"{path} cannot be read as JSON: {error}; give one public JWK") from error
    if not isinstance(found, dict):
        raise InvalidCall(f"{path} holds no JSON object; give one public JWK")
    return found

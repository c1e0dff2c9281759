"""`mcpfleet secrets`: set, show, rotate and delete secrets, and the keys that they are sealed under.

A value is read from standard input or a file, never from an argument, which every user of the machine can read
and every shell remembers; and it is never printed.
"""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, get_args
from urllib.parse import quote

import typer
from rich.markup import escape

from orchestrator.cli.desk import Desk, JsonFlag, desk_of
from orchestrator.cli.durations import ago
from orchestrator.cli.exits import BadInput
from orchestrator.cli.screen import Column
from orchestrator.secrets.keyfile import add_key, new_key_file
from tasks.secret_wire import RewrapView, SecretRequest, SecretView, Source
from tasks.secretref import PREFIX, VALUE_LIMIT_BYTES

LOOK_EVERY_S = 1.0
"""While rows are sealed anew."""
secrets = typer.Typer(no_args_is_help=True, help="Secrets by reference: values that only the nodes you name are given.")
Named = Annotated[str, typer.Argument(metavar="OWNER:NAME", help="The owner: a project, or `tenant`.")]
FileOption = Annotated[Path | None, typer.Option("--file", help="Read the value here; else from standard input.")]
NodeOption = Annotated[list[str] | None, typer.Option("--node", help="May have it; repeatable, * is any.")]
PoolOption = Annotated[list[str] | None, typer.Option("--pool", help="Its nodes may have it; repeatable, * is any.")]
SourceOption = Annotated[
    str | None, typer.Option("--source", help="database, or file or vault: there the value is kept, under its name.")
]


@secrets.command("set")
def set_secret(
    ctx: typer.Context,
    name: Named,
    *,
    file: FileOption = None,
    node: NodeOption = None,
    pool: PoolOption = None,
    source: SourceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Set a secret, or change it. Without --node and --pool who may have it stays as it was."""
    desk = desk_of(ctx)
    kept = source if source is not None else "database"
    value = None if kept != "database" else _value(desk, file)
    rule = {"nodes": None if node is None else tuple(node), "pools": None if pool is None else tuple(pool)}
    if rule["nodes"] is not None or rule["pools"] is not None:  # what is said is the whole rule
        rule = {which: names or () for which, names in rule.items()}
    _put(desk, name, {"value": value, "source": _source(source), **rule}, as_json=as_json)


@secrets.command()
def rotate(ctx: typer.Context, name: Named, *, file: FileOption = None, as_json: JsonFlag = False) -> None:
    """Give a secret that is there a new value; what runs with it is started again, between calls."""
    desk = desk_of(ctx)
    with desk.api() as api:
        api.get(_path(name), SecretView)  # one that is not there is a typing error
    _put(desk, name, {"value": _value(desk, file)}, as_json=as_json)


@secrets.command("list")
def list_secrets(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List secrets, without their values."""
    desk = desk_of(ctx)
    with desk.api() as api:
        found = list(api.pages("/v1/secrets", SecretView))
    if as_json:
        desk.screen.json(found)
        return
    columns = [Column(name) for name in ("SECRET", "VERSION", "SOURCE", "NODES", "POOLS", "CHANGED", "BY", "KEY")]
    rows = [
        [one.ref, str(one.version), one.source, " ".join(one.nodes), " ".join(one.pools),
         ago(one.changed_at, desk.now()), one.changed_by, one.key or ""]
        for one in found
    ]  # fmt: skip
    desk.screen.table(columns, rows, empty="no secrets; `mcpfleet secrets set OWNER:NAME --pool POOL` sets one")


@secrets.command()
def show(ctx: typer.Context, name: Named, as_json: JsonFlag = False) -> None:
    """What is known of one, but its value: that is shown to nobody."""
    desk = desk_of(ctx)
    with desk.api() as api:
        _say(desk, api.get(_path(name), SecretView), as_json=as_json)


@secrets.command()
def delete(ctx: typer.Context, name: Named, as_json: JsonFlag = False) -> None:
    """Forget a secret. Servers that run with it end, and say that it is not there."""
    desk = desk_of(ctx)
    with desk.api() as api:
        api.send("DELETE", _path(name))
    if as_json:
        desk.screen.json({"name": name, "is_deleted": True})
    else:
        desk.screen.note(f"[green]✓[/] {escape(name)} is gone")


@secrets.command("rotate-key")
def rotate_key(ctx: typer.Context, as_json: JsonFlag = False) -> int:
    """Seal everything under the newest key of the key file; older keys are not needed then.

    Rows of the ledger are done in the background, and this waits for them: Ctrl-C leaves them going on.
    """
    desk = desk_of(ctx)
    with desk.api() as api:
        view = first = api.post("/v1/secret-rewraps", RewrapView)
        while view.is_running:
            desk.sleep(LOOK_EVERY_S)
            view = api.get("/v1/secret-rewraps", RewrapView)
    view = view.model_copy(update={"secrets": first.secrets, "blobs": first.blobs})
    if as_json:
        desk.screen.json(view)
    else:
        _say_rotated(desk, view)
    return 1 if view.stopped or view.unopened else 0


@secrets.command("new-key")
def new_key(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The key file, on the orchestrator's host.")],
    kid: Annotated[str | None, typer.Option("--kid", help="The key's name; the time when absent.")] = None,
) -> None:
    """Make a key file, or put a new key first in it. It seals once the orchestrator was restarted."""
    desk = desk_of(ctx)
    named = kid or datetime.fromtimestamp(desk.now(), UTC).strftime("k%Y%m%d-%H%M%S")
    ring = add_key(path, kid=named) if path.exists() else new_key_file(path, kid=named)
    desk.screen.note(
        f"[green]✓[/] {escape(str(path))} has {len(ring.kids)}, and [bold]{escape(ring.newest)}[/] seals. Copy it "
        "to where the database's backups are not: what was sealed cannot be opened without it"
    )
    if len(ring.kids) > 1:
        desk.screen.note("  next: restart the orchestrator, then `mcpfleet secrets rotate-key`")


def _say_rotated(desk: Desk, view: RewrapView) -> None:
    what = f"{view.secrets} secrets, {view.blobs} blobs and {view.texts} texts of rows"
    desk.screen.note(f"[green]✓[/] {what} sealed anew under [bold]{escape(view.key)}[/]")
    if view.stopped:
        desk.screen.note(f"[red]✗[/] rows are not all done: {escape(view.stopped)}. Run it again: it goes on there")
    elif view.unopened:
        desk.screen.note(
            f"[red]✗[/] {view.unopened} texts do not open and were left; the orchestrator's log (row_not_resealed) "
            "names their rows. Keep the older keys in the file"
        )
    else:
        desk.screen.note("  the older lines may leave the key file now; backups of before need them")


def _put(desk: Desk, name: str, members: dict[str, object], *, as_json: bool) -> None:
    body = SecretRequest.model_validate({key: value for key, value in members.items() if value is not None})
    with desk.api() as api:
        answer = api.send("PUT", _path(name), body.model_dump(mode="json", exclude_none=True))
    _say(desk, SecretView.model_validate(answer), as_json=as_json)


def _say(desk: Desk, view: SecretView, *, as_json: bool) -> None:
    if as_json:
        desk.screen.json(view)
        return
    who = ", ".join([*(f"node {one}" for one in view.nodes), *(f"pool {one}" for one in view.pools)])
    what = f"version {view.version} ({view.source})"
    desk.screen.note(f"[green]✓[/] [bold]{escape(view.ref)}[/], {what}, for {escape(who)}")


def _path(name: str) -> str:
    owner, colon, own = name.removeprefix(PREFIX).partition(":")
    if not colon or not owner or not own:
        raise BadInput(f"{name!r} is not OWNER:NAME; the owner is a project, or `tenant`")
    return f"/v1/secrets/{quote(owner, safe='')}/{quote(own, safe='')}"


def _source(text: str | None) -> Source | None:
    found = next((one for one in get_args(Source) if one == text), None)
    if text is not None and found is None:
        raise BadInput(f"--source {text!r}: {', '.join(get_args(Source))}")
    return found


def _value(desk: Desk, file: Path | None) -> str:
    if file is not None:
        try:
            with file.open("rb") as opened:
                data = opened.read(VALUE_LIMIT_BYTES + 1)
        except OSError as error:
            raise BadInput(f"{file} cannot be read: {error.strerror}") from None
    elif desk.stdin.isatty():
        data = getpass.getpass("value (not shown): ").encode()
    else:
        data = desk.stdin.read(VALUE_LIMIT_BYTES + 1)
    if len(data) > VALUE_LIMIT_BYTES:
        raise BadInput(f"the value is longer than {VALUE_LIMIT_BYTES} bytes")
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadInput("the value is not UTF-8 text; encode it, in base64 for example") from None

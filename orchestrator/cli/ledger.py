"""`mcpfleet ledger`: back up, check and restore the ledger and its blobs. Run with the orchestrator's settings."""

from __future__ import annotations

import getpass
import secrets
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from orchestrator.cli.desk import Desk, JsonFlag, desk_of
from orchestrator.cli.exits import BadInput, Exit
from orchestrator.cli.fleet import orchestrator_settings, our_version

if TYPE_CHECKING:
    from orchestrator.backup_folder import Manifest
    from orchestrator.ledger.new_life import NewLife
    from orchestrator.restore import Here
    from orchestrator.settings import OrchestratorSettings

ledger = typer.Typer(no_args_is_help=True, help="The ledger: back it up while it is used, check a backup, restore one.")
FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Of the backup.")]
KeyFlag = Annotated[
    bool, typer.Option("--with-key-file", help="Put the key file in it, too: whoever has the backup reads all of it.")
]
RunFlag = Annotated[
    bool, typer.Option("--nothing-ran-since", help="The fleet stood still since the backup: all that waits runs.")
]


@ledger.command()
def backup(
    ctx: typer.Context, folder: FolderArgument, with_key_file: KeyFlag = False, as_json: JsonFlag = False
) -> None:
    """Copy ledger and blobs into a new folder, while the fleet runs; read them again."""
    from orchestrator.backup import Wanted, take

    desk = desk_of(ctx)
    settings = _settings(desk)
    if with_key_file and settings.key_file is None:
        raise BadInput("--with-key-file: MCPFLEET_KEY_FILE is not set, so there is none")
    manifest = take(
        Wanted(
            url=settings.database_url,
            blob_dir=settings.blob_dir,
            folder=folder.absolute(),
            key_file=settings.key_file if with_key_file else None,
            version=our_version(),
            now=desk.now(),
            environ=desk.settings.environ,
        )
    )
    if as_json:
        desk.screen.json(manifest)
        return
    desk.screen.note(f"[green]✓[/] {escape(str(folder))}: {_what(manifest)}")
    _remarks(desk, manifest)


@ledger.command()
def check(ctx: typer.Context, folder: FolderArgument, as_json: JsonFlag = False) -> None:
    """Read all of a backup and compare it with what was written; exit status 1 if anything is wrong."""
    from orchestrator.backup_folder import check as look

    desk = desk_of(ctx)
    manifest, faults = look(folder, desk.settings.environ)
    if as_json:
        desk.screen.json({"manifest": manifest.model_dump(mode="json"), "faults": faults})
    else:
        for fault in faults:
            desk.screen.line(fault)
        desk.screen.line(f"{'BROKEN' if faults else 'whole'}: {_what(manifest)}")
    if faults:
        raise typer.Exit(Exit.FAILED)


@ledger.command()
def restore(
    ctx: typer.Context, folder: FolderArgument, nothing_ran_since: RunFlag = False, as_json: JsonFlag = False
) -> None:
    """Put a backup into an empty database, orchestrators stopped. What may have run since is repeated only if safe."""
    from orchestrator.restore import Wanted, put_back

    desk = desk_of(ctx)
    settings = _settings(desk)
    here = _here(desk, settings, nothing_ran_since)
    restored = put_back(Wanted(folder=folder, here=here, blob_dir=settings.blob_dir, environ=desk.settings.environ))
    if as_json:
        desk.screen.json({"manifest": restored.manifest.model_dump(mode="json"), "life": asdict(restored.life)})
        return
    manifest = restored.manifest
    desk.screen.note(f"[green]✓[/] the fleet's ledger is as it was at {_day(manifest.taken_at)}")
    desk.screen.note(f"  {restored.new_blobs} blobs were put back")
    _say(desk, restored.life)
    if manifest.is_sealed and settings.key_file is None:
        desk.screen.note(
            "[yellow]  some of it is sealed: set MCPFLEET_KEY_FILE to the key file of that time before you start[/]"
        )


@ledger.command("begin-anew")
def begin_anew(ctx: typer.Context, nothing_ran_since: RunFlag = False, as_json: JsonFlag = False) -> None:
    """After a snapshot of machine or database was put back: does to the ledger there what a restore does to calls."""
    from orchestrator.restore import begin_here

    desk = desk_of(ctx)
    life = begin_here(_here(desk, _settings(desk), nothing_ran_since))
    if as_json:
        desk.screen.json(asdict(life))
        return
    desk.screen.note("[green]✓[/] the ledger has begun a new life")
    _say(desk, life)


def _here(desk: Desk, settings: OrchestratorSettings, is_waiting_run: bool) -> Here:
    from orchestrator.restore import Here

    return Here(settings.database_url, is_waiting_run, desk.now(), getpass.getuser(), secrets.token_hex(32))


def _say(desk: Desk, life: NewLife) -> None:
    note = desk.screen.note
    note(f"  epoch {life.epoch}: whatever is still said of the time that was lost is refused")
    note(
        f"  {_calls(life.doubtful)} may have run since then: once an orchestrator leads and their grace is over, what "
        "is safe to repeat runs again, the rest is a dead letter ([bold]mcpfleet dead list[/]): look, then replay it"
    )
    note(f"  still waiting as before: {_calls(life.waiting)}")
    note(
        f"  {life.nodes} nodes are lost until they renew. One that joined after that moment ends with status 4 and is "
        "back when it is started again, as Compose, Kubernetes and systemd do; one enrolled since needs another token"
    )
    note(
        "[yellow]  not in it: calls accepted since then, and their idempotency keys. What was revoked since then is "
        "good again: keys, clients, grants, enrolments; revoke it once more[/]"
    )


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


def _what(manifest: Manifest) -> str:
    rows = sum(manifest.rows.values())
    calls = manifest.rows.get("mcpfleet_invocations", 0)
    return (
        f"{manifest.database} at schema {manifest.ledger_schema}, {_day(manifest.taken_at)}, {calls} calls, "
        f"{rows} rows, {manifest.blobs} blobs; audit log to row {manifest.audit_last}"
    )


def _day(at: float) -> str:
    """Whole, also when it was today: a backup is read later."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _remarks(desk: Desk, manifest: Manifest) -> None:
    note = desk.screen.note
    note("[dim]  not in it: MCPFLEET_POOL_SECRET, tokens, the audit log's key; keep them elsewhere[/]")
    if manifest.has_keys:
        note("[yellow]  the key file is in it: who has this folder reads every secret[/]")
    elif manifest.is_sealed:
        note("[yellow]  some of it is sealed, and the key file is not in it: it opens nowhere without that file[/]")
    if manifest.blobs_missing:
        note(f"[yellow]  {manifest.blobs_missing} blobs that rows name are not in the store: erased, or lost before[/]")


def _settings(desk: Desk) -> OrchestratorSettings:
    """The orchestrator's own; what opens its doors is not needed here."""
    return orchestrator_settings(desk, without=("token", "join_token"))

"""`mcpfleet audit`: who did what, who was refused, and whether the log of it is what was written.

`verify` works on a running fleet, on a database or a copy of one, and on an export. Refuses to repair.
"""

from __future__ import annotations

import socket
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from orchestrator.audit.checkpoint import Keys, line_of, public_keys
from orchestrator.audit.formats import Form, writer
from orchestrator.audit.verify import Finding, Report
from orchestrator.audit.verify import verify as look
from orchestrator.cli import audit_sources
from orchestrator.cli.api import Params, listed
from orchestrator.cli.audit_sources import API_PAGE, Source
from orchestrator.cli.desk import SINCE, Desk, JsonFlag, LimitOption, desk_of
from orchestrator.cli.durations import parse_at, when
from orchestrator.cli.exits import BadInput, Exit
from orchestrator.cli.screen import Cell, Column, clean
from orchestrator.ledger.audit_values import CheckpointRow, Decision
from tasks.wire_audit import AuditKeyView, AuditRowView, CheckpointView

audit = typer.Typer(no_args_is_help=True, help="The audit log: who did what, and whether it was altered.")
ActorOption = Annotated[str | None, typer.Option("--actor", help="Only what this id did.")]
ActionOption = Annotated[str | None, typer.Option("--action", help="Only this action, or what begins so: node.")]
TargetOption = Annotated[str | None, typer.Option("--target", help="Only what was done to this.")]
DecisionOption = Annotated[Decision | None, typer.Option("--decision", help="Only what was decided so.")]
SinceOption = Annotated[str | None, SINCE]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then.")]
DatabaseOption = Annotated[
    str | None, typer.Option("--database", metavar="URL", help="This database, or a copy; no fleet is asked.")
]
RowsOption = Annotated[Path | None, typer.Option("--rows", metavar="FILE", help="An export in JSON lines.")]
KeptOption = Annotated[
    list[Path] | None, typer.Option("--checkpoints", metavar="FILE", help="Checkpoints kept elsewhere.")
]
KeyOption = Annotated[
    list[Path] | None, typer.Option("--key", metavar="FILE", help="Public keys whose signature counts.")
]
FormOption = Annotated[Form, typer.Option("--form", help="How rows are written.")]


@audit.command("list")
def list_audit(
    ctx: typer.Context,
    *,
    actor: ActorOption = None,
    action: ActionOption = None,
    target: TargetOption = None,
    decision: DecisionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 50,
    as_json: JsonFlag = False,
) -> None:
    """List who did what, newest first."""
    desk = desk_of(ctx)
    params = _params(desk, actor, action, target, decision, since, until)
    with desk.api() as api:
        pages = api.pages("/v1/audit", AuditRowView, {**params, "limit": min(limit, API_PAGE)})
        found = listed(pages, limit)
    if as_json:
        desk.screen.json(found)
        return
    columns = [Column(title) for title in ("ROW", "TIME", "ACTOR", "ACTION", "TARGET")]
    if desk.screen.is_person and not desk.screen.is_roomy:  # why somebody was refused says more than from where
        columns += [Column("DECISION", is_wide=True, is_wrapped=True)]
        rows = [_narrow_cells(row) for row in found]
    else:
        columns += [Column("DECISION"), Column("PEER"), Column("REASON", is_wide=True, is_wrapped=True)]
        rows = [_cells(row) for row in found]
    desk.screen.table(columns, rows, empty="no such rows in the audit log")


@audit.command()
def export(
    ctx: typer.Context,
    *,
    form: FormOption = Form.JSONL,
    actor: ActorOption = None,
    action: ActionOption = None,
    target: TargetOption = None,
    decision: DecisionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
) -> None:
    """Write rows to standard output, in the order of writing."""
    desk = desk_of(ctx)
    params = _params(desk, actor, action, target, decision, since, until)
    line = writer(form, socket.gethostname())
    with desk.api() as api:
        for row in audit_sources.rows_of(api, params):
            desk.screen.raw(line(row))


@audit.command()
def verify(
    ctx: typer.Context,
    *,
    database: DatabaseOption = None,
    rows: RowsOption = None,
    checkpoints: KeptOption = None,
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check every row, the chain, and what was signed; exit status 1 if anything is wrong."""
    desk = desk_of(ctx)
    if database and rows:
        raise BadInput("--database and --rows name two logs; give one of them")
    kept = [row for path in checkpoints or () for row in audit_sources.kept_in(path)]
    with audit_sources.opened(desk, database, rows) as source:
        keys = _keys(desk, source, key)
        report = look(source.rows, source.checkpoints, kept, keys)
    if as_json:
        desk.screen.json(asdict(report) | {"is_sound": report.is_sound})
    else:
        _say(desk, report, kept, keys)
    if not report.is_sound:
        raise typer.Exit(Exit.FAILED)


@audit.command()
def checkpoint(ctx: typer.Context) -> None:
    """Sign the newest row now, and print the checkpoint: keep that line on another machine."""
    desk = desk_of(ctx)
    with desk.api() as api:
        signed = api.post("/v1/audit/checkpoints", CheckpointView)
    desk.screen.raw(line_of(CheckpointRow(**signed.model_dump())))


@audit.command("key")
def public_key(ctx: typer.Context) -> None:
    """Print the public key of the checkpoints: keep it on another machine."""
    desk = desk_of(ctx)
    with desk.api() as api:
        found = api.get("/v1/audit/key", AuditKeyView)
    desk.screen.raw(found.pem)


def _params(  # noqa: PLR0917 - the filters of a listing
    desk: Desk,
    actor: str | None,
    action: str | None,
    target: str | None,
    decision: Decision | None,
    since: str | None,
    until: str | None,
) -> Params:
    now = desk.now()
    return {
        "actor": actor,
        "action": action,
        "target": target,
        "decision": None if decision is None else decision.value,
        "since": None if since is None else parse_at(since, now),
        "until": None if until is None else parse_at(until, now),
    }


def _cells(row: AuditRowView) -> list[Cell]:
    reason = row.reason or ("" if row.details_json == "{}" else row.details_json)
    return [*_first_cells(row), Text(row.decision, _colour(row)), row.peer, reason]


def _narrow_cells(row: AuditRowView) -> list[Cell]:
    why = f": {row.reason}" if row.reason else ""
    return [*_first_cells(row), Text(clean(f"{row.decision}{why}"), _colour(row))]


def _first_cells(row: AuditRowView) -> list[Cell]:
    return [str(row.seq), when(row.at_us / 1e6), row.actor, row.action, row.target]


def _colour(row: AuditRowView) -> str:
    return "red" if row.decision in {Decision.REFUSED, Decision.FAILED} else ""


def _keys(desk: Desk, source: Source, paths: list[Path] | None) -> Keys:
    if paths:
        return {name: key for path in paths for name, key in public_keys(audit_sources.text_of(path)).items()}
    if source.key_pem is None:
        desk.screen.note(
            "[yellow]no --key: no signature can be checked, so each checkpoint is named. "
            "Give what `mcpfleet audit key` printed[/]"
        )
        return {}
    desk.screen.note(
        "[yellow]the key is the fleet's own word: who took over the orchestrator could answer with another. "
        "Give --key a copy that you keep[/]"
    )
    return public_keys(source.key_pem)


def _is_of_signature(finding: Finding) -> bool:
    """Whether it says no more than that no key was given which made a signature."""
    return finding.text.endswith("which is none of those given")


def _say(desk: Desk, report: Report, kept: list[CheckpointRow], keys: Keys) -> None:
    screen = desk.screen
    for finding in report.findings:
        screen.line(f"row {finding.seq}: {finding.text}")
        screen.note(f"[dim]{finding.do}[/]")
    if report.unnamed:
        screen.line(f"and {report.unnamed} more")
    signed = f"signed up to row {report.signed_up_to}" if report.signed_up_to else "no row is signed"
    span = f"rows {report.first} to {report.last}" if report.rows else "no rows"
    is_unproved = not keys and not report.unnamed and all(_is_of_signature(one) for one in report.findings)
    verdict = "sound" if report.is_sound else "NOT PROVED, for want of a key" if is_unproved else "ALTERED"
    screen.line(f"{verdict}: {span} ({report.rows}), {signed}, {report.checkpoints} good checkpoints")
    if not kept:
        screen.note(
            "[dim]without --checkpoints from another machine, rows cut off the end together with their checkpoints "
            "are not seen[/]"
        )
    elif report.last > report.signed_up_to:
        screen.note(f"[dim]rows after {report.signed_up_to} are chained, and not signed yet[/]")

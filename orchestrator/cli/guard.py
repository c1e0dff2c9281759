"""`mcpfleet guard`: ask AuthGuardian, answer what others asked, and look at what it granted.

A token goes to standard output, alone; everything else about it goes to standard error.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from orchestrator.cli.desk import Desk, JsonFlag, ReasonOption, YesFlag, desk_of
from orchestrator.cli.durations import parse_s, took
from orchestrator.cli.exits import BadInput, Exit
from orchestrator.cli.guard_client import Kept, address, call, keep, read, server_of, token_of
from orchestrator.cli.screen import Column
from orchestrator.cli.settings import Target
from tasks.errors import NotAllowed

TOKEN_CHARS_MAX = 8192
WAIT_MAX_S = 55.0

guard = typer.Typer(no_args_is_help=True, help="AuthGuardian: ask for a permission, and answer those who ask.")
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `mcpfleet guard pending` shows it.")]
TokenArgument = Annotated[str, typer.Argument(metavar="TOKEN|-", help="The token; - reads it from standard input.")]
Agent = Annotated[str, typer.Option("--agent", help="Whose: your own id, or that of an agent you may ask for.")]
Resource = Annotated[str, typer.Option("--resource", help="As `mcpfleet guard resources` lists it.")]


@guard.command()
def connect(
    ctx: typer.Context,
    server: Annotated[str, typer.Option("--server", help="The fleet's address: https://fleet.example:8700.")],
    token_file: Annotated[
        str | None, typer.Option("--token-file", help="A private file with your API key; remembered by its name.")
    ] = None,
) -> None:
    """Check that AuthGuardian answers there, and use it from now on."""
    desk = desk_of(ctx)
    url, token = address(server), token_of(token_file) or desk.settings.token
    if token is None:
        raise NotAllowed(f"no token for {url}; give --token-file, or set MCPFLEET_TOKEN")
    types = read(Target(url, token, "--server"), "grants://resources")["resources"]
    file = keep(desk.settings, Kept(url, token_file))
    desk.screen.note(
        f"[green]✓[/] AuthGuardian at {escape(url)} knows {len(types)} resource types; kept in {escape(str(file))}"
    )


@guard.command("request-permission")
def request_permission(
    ctx: typer.Context,
    *,
    agent: Agent,
    resource: Resource,
    justification: Annotated[str, typer.Option("--justification", help="Kept for people; it never makes a yes.")],
    scope: Annotated[list[str] | None, typer.Option("--scope", "-s", help="May be repeated.")] = None,
    lifetime: Annotated[str | None, typer.Option("--for", metavar="TIME", help="How long: 90, 10m, 1h.")] = None,
    wait: Annotated[str, typer.Option("--wait", metavar="TIME", help="For a person's answer, up to 55s.")] = "20s",
    request_id: Annotated[str | None, typer.Option("--id", help="Ask again about a pending request.")] = None,
    as_json: JsonFlag = False,
) -> int:
    """Ask for a grant and print its token; status 1 where it is denied, 7 while a person is asked."""
    desk = desk_of(ctx)
    arguments: dict[str, object] = {
        "agent_id": agent,
        "resource_type": resource,
        "justification": justification,
        "scope": scope or None,
        "lifetime_s": None if lifetime is None else float(parse_s(lifetime)),
        "wait_s": min(float(parse_s(wait)), WAIT_MAX_S),
        "request_id": request_id,
    }
    view = call(server_of(desk), "request_permission", arguments)
    if as_json:
        desk.screen.json(view)
    else:
        _tell(desk, view)
    return {"granted": Exit.OK, "pending": Exit.STILL_RUNNING}.get(view["status"], Exit.FAILED)


@guard.command()
def validate(
    ctx: typer.Context, token: TokenArgument, *, agent: Agent, resource: Resource, as_json: JsonFlag = False
) -> int:
    """Say whether a token allows this agent this resource now; status 1 where not."""
    desk = desk_of(ctx)
    arguments = {"token": _token(desk, token), "agent_id": agent, "resource_type": resource}
    view = call(server_of(desk), "validate_token", arguments)
    if as_json:
        desk.screen.json(view)
    elif view["valid"]:
        found = view["grant"]
        left = took(max(0.0, found["expires_at"] - desk.now()))
        desk.screen.note(f"[green]✓[/] {found['resource_type']} {escape(' '.join(found['scope']))}, for {left} more")
    else:
        desk.screen.note(f"[red]✗[/] not good: {escape(view['why'])}")
    return Exit.OK if view["valid"] else Exit.FAILED


@guard.command()
def revoke(ctx: typer.Context, token: Annotated[str, typer.Argument(metavar="TOKEN|ID|-")]) -> None:
    """Void a grant, or withdraw a request; within seconds every node knows, and stops what runs under it."""
    desk = desk_of(ctx)
    text = _token(desk, token)
    view = call(server_of(desk), "revoke_token", {"token": text} if "." in text else {"id": text})
    desk.screen.note(f"[green]✓[/] {view['id']} of {escape(view['agent_id'])} is {view['status']}")


@guard.command()
def grants(
    ctx: typer.Context,
    audit: Annotated[bool, typer.Option("--audit", help="What was asked, decided and revoked, newest first.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the grants that are good now."""
    desk = desk_of(ctx)
    found = read(server_of(desk), "grants://audit" if audit else "grants://active")
    rows = found["events" if audit else "grants"]
    if as_json:
        desk.screen.json(rows)
    elif audit:
        columns = [Column(name) for name in ("AT", "ACT", "BY", "AGENT", "RESOURCE", "SCOPE")]
        table = [
            [took(desk.now() - one["at"]), one["act"], one["by"], one["agent_id"], one["resource_type"], _words(one)]
            for one in rows
        ]
        desk.screen.table(columns, table, empty="nobody asked anything yet")
    else:
        _table(desk, rows, "expires_at", "LEFT", empty="no grant is good now")


@guard.command()
def pending(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List the requests that wait for a person."""
    desk = desk_of(ctx)
    rows = read(server_of(desk), "grants://pending")["requests"]
    if as_json:
        desk.screen.json(rows)
    else:
        _table(desk, rows, "answer_by", "ANSWER IN", empty="nothing waits for an answer")


@guard.command()
def allow(ctx: typer.Context, request: IdArgument, reason: ReasonOption = "", yes: YesFlag = False) -> int:
    """Allow a request: exactly the terms that are shown."""
    desk = desk_of(ctx)
    target = server_of(desk)
    view = _pending(target, request)
    if not yes:
        if not desk.screen.is_person:
            raise BadInput("allow asks before it allows, and nobody is at this terminal; look at it, then --yes")
        _terms(desk, view)
        if not typer.confirm("Allow it?", default=False, err=True):
            desk.screen.note(f"[dim]·[/] {view['id']} was not answered")
            return Exit.FAILED
    return _answer(desk, target, view, "allow", reason)


@guard.command()
def deny(ctx: typer.Context, request: IdArgument, reason: ReasonOption = "") -> int:
    """Deny a request."""
    desk = desk_of(ctx)
    target = server_of(desk)
    return _answer(desk, target, _pending(target, request), "deny", reason)


@guard.command()
def resources(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List what can be asked for."""
    desk = desk_of(ctx)
    types = read(server_of(desk), "grants://resources")["resources"]
    if as_json:
        desk.screen.json(types)
        return
    columns = [
        Column("RESOURCE"), Column("RISK", is_right=True), Column("DECIDES"), Column("LONGEST", is_right=True),
        Column("SCOPES", is_wide=True),
    ]  # fmt: skip
    table = [
        [name, str(one["risk"]), one["decided_by"], took(one["lifetime_max_s"]), " ".join(one["scopes"])]
        for name, one in types.items()
    ]
    desk.screen.table(columns, table, empty="nothing can be asked for; see MCPFLEET_GUARD_FILE")


def _tell(desk: Desk, view: dict[str, Any]) -> None:
    about = f"{view['resource_type']} {escape(_words(view))} for {escape(view['agent_id'])}"
    if view["status"] == "granted":
        desk.screen.line(view["token"])
        left = took(max(0.0, view["expires_at"] - desk.now()))
        desk.screen.note(f"[green]✓[/] {about}, for {left}; void it: mcpfleet guard revoke {view['id']}")
    elif view["status"] == "pending":
        desk.screen.note(f"[yellow]·[/] {about}: a person is asked. Ask again with --id {view['id']}")
    else:
        desk.screen.note(f"[red]✗[/] {about}: {view['status']}. {escape(view['reason'])}")


def _terms(desk: Desk, view: dict[str, Any]) -> None:
    restrictions = ", ".join(f"{name}={value}" for name, value in view["restrictions"].items()) or "none"
    lines = {
        "agent": f"{view['agent_id']} of tenant {view['tenant']}",
        "asked": f"by {view['requested_by']}, over a connection of trust {view['trust']}",
        "wants": f"{view['resource_type']}: {_words(view)}",
        "for": took(view["lifetime_s"]),
        "within": restrictions,
        "says": view["justification"],
    }
    for name, text in lines.items():
        desk.screen.note(f"[bold]{name:>7}[/]  {escape(text)}")
    desk.screen.note("[dim]What it says is the agent's own claim; nobody has checked it.[/]")


def _pending(target: Target, request: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = read(target, "grants://pending")["requests"]
    found = [row for row in rows if row["id"].endswith(request)]
    if len(found) != 1:
        raise BadInput(f"{request!r} names {len(found)} pending requests; mcpfleet guard pending lists them")
    return found[0]


def _answer(desk: Desk, target: Target, view: dict[str, Any], verdict: str, reason: str) -> int:
    said = {"id": view["id"], "verdict": verdict, "terms_sha256": view["terms_sha256"], "reason": reason}
    row = call(target, "answer_request", said)
    desk.screen.note(f"[green]✓[/] {row['id']} of {escape(row['agent_id'])} is {row['status']}")
    return Exit.OK


def _table(desk: Desk, rows: list[dict[str, Any]], until: str, header: str, *, empty: str) -> None:
    columns = [
        Column("ID", is_wide=True), Column("AGENT"), Column("RESOURCE"), Column("SCOPE"), Column(header, is_right=True)
    ]  # fmt: skip
    table = [
        [row["id"], row["agent_id"], row["resource_type"], _words(row), took(max(0.0, row[until] - desk.now()))]
        for row in rows
    ]
    desk.screen.table(columns, table, empty=empty)


def _words(view: dict[str, Any]) -> str:
    return " ".join(view["scope"])


def _token(desk: Desk, text: str) -> str:
    return desk.stdin.read(TOKEN_CHARS_MAX + 1).decode(errors="replace").strip() if text == "-" else text

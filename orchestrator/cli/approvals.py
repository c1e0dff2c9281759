"""`mcpfleet approvals, approve, deny`: what runs ask of people, and answering it.

What is shown before an answer is what is answered to: its digest goes with it. Refuses to show anything of an
agent's raw: what could act on a terminal is escaped.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from orchestrator.cli import paint
from orchestrator.cli.api import Api, listed
from orchestrator.cli.desk import Desk, IdArgument, JsonFlag, LimitOption, ReasonOption, YesFlag, desk_of
from orchestrator.cli.durations import ago, took
from orchestrator.cli.exits import BadInput, Exit
from orchestrator.cli.screen import Cell, Column
from orchestrator.cli.shortid import find, is_full, short
from tasks.approval import ApprovalState, Verdict, canonical, shown, shown_line
from tasks.approval import digest as digest_of
from tasks.approval_wire import ApprovalView

LOOK_BACK = 2000
"""Newest approvals among which a short id is looked for."""
PAGE_MAX = 200
_STYLES = {
    ApprovalState.WAITING: "yellow",
    ApprovalState.ALLOWED: "green",
    ApprovalState.DENIED: "red",
    ApprovalState.EXPIRED: "red",
    ApprovalState.OVER: "dim",
}

approvals = typer.Typer(help="What runs ask of people.", invoke_without_command=True)
AllFlag = Annotated[bool, typer.Option("--all", "-a", help="Answered ones too.")]


@approvals.callback()
def list_approvals(
    ctx: typer.Context, all_states: AllFlag = False, limit: LimitOption = 50, as_json: JsonFlag = False
) -> None:
    """List what runs wait for people to answer, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    desk = desk_of(ctx)
    states = [] if all_states else [ApprovalState.WAITING]
    with desk.api() as api:
        pages = api.pages("/v1/approvals", ApprovalView, {"state": states, "limit": min(limit, PAGE_MAX)})
        found = list(listed(pages, limit))
    if as_json:
        desk.screen.json(found)
        return
    columns = [
        Column("ID"),
        Column("RUN"),
        Column("OF"),
        Column("PROJECT"),
        Column("STATE"),
        Column("LEFT", is_right=True),
        Column("ASKS", is_wide=True),
    ]
    now = desk.now()
    empty = "nobody asked anything yet" if all_states else "nothing waits for an answer"
    desk.screen.table(columns, [_line(view, now) for view in found], empty=empty)


@approvals.command("show")
def show_approval(ctx: typer.Context, approval: IdArgument, as_json: JsonFlag = False) -> None:
    """Show one, with its exact arguments."""
    desk = desk_of(ctx)
    with desk.api() as api:
        view = _look(api, approval)
    if as_json:
        desk.screen.json(view)
    else:
        _show(desk, view)


def approve(ctx: typer.Context, approval: IdArgument, yes: YesFlag = False, as_json: JsonFlag = False) -> int:
    """Allow what a run asks for: just these arguments, once."""
    desk = desk_of(ctx)
    with desk.api() as api:
        view = _look(api, approval)
        if not yes:
            if not desk.screen.is_person:
                raise BadInput("approve asks before it allows, and nobody is at this terminal; look at it, then --yes")
            _show(desk, view)
            if not typer.confirm("Allow it?", default=False, err=True):
                desk.screen.note(f"[dim]·[/] {short(view.id)} was not answered; mcpfleet deny {short(view.id)}")
                return Exit.FAILED
        return _answer(desk, api, view, Verdict.ALLOW, "", as_json=as_json)


def deny(ctx: typer.Context, approval: IdArgument, reason: ReasonOption = "", as_json: JsonFlag = False) -> int:
    """Refuse what a run asks for; the agent is told and goes on without it."""
    desk = desk_of(ctx)
    with desk.api() as api:
        return _answer(desk, api, _look(api, approval), Verdict.DENY, reason, as_json=as_json)


def _answer(desk: Desk, api: Api, view: ApprovalView, verdict: Verdict, reason: str, *, as_json: bool) -> int:
    # Of what this process saw, not what it was told that it saw.
    body = {"answer": verdict, "arguments_sha256": digest_of(canonical(view.arguments)), "reason": reason}
    after = api.post(f"/v1/approvals/{view.id}", ApprovalView, body)
    if as_json:
        desk.screen.json(after)
    else:
        said = "[green]✓[/] allowed" if verdict is Verdict.ALLOW else "[green]✓[/] denied"
        desk.screen.note(
            f"{said}: {escape(shown_line(view.tool))} for {short(view.invocation)} [dim]· {short(view.id)}[/]"
        )
    return Exit.OK


def _look(api: Api, text: str) -> ApprovalView:
    if is_full(text):
        wanted = text
    else:
        known = listed(api.pages("/v1/approvals", ApprovalView, {"limit": PAGE_MAX}), LOOK_BACK)
        wanted = find(text, (view.id for view in known), "approval")
    return api.get(f"/v1/approvals/{wanted}", ApprovalView)


def _line(view: ApprovalView, now: float) -> list[Cell]:
    left = took(view.expires_at - now) if view.state is ApprovalState.WAITING else ""
    return [
        short(view.id),
        short(view.invocation),
        paint.tool(view.fleet_tool),
        view.project or "",
        Text(view.state, _STYLES[view.state]),
        left,
        f"{shown_line(view.tool)} {_brief(view)}",
    ]


def _show(desk: Desk, view: ApprovalView) -> None:
    now, line = desk.now(), desk.screen.line
    line(f"approval   {view.id}")
    line(f"state      {view.state}{_said(view)}")
    line(f"run        {view.invocation} of {view.fleet_tool} on {view.node}")
    if view.project:
        line(f"project    {view.project}")
    line(f"asked      {ago(view.asked_at, now)} ago{_left(view, now)}")
    line(f"tool       {shown_line(view.tool)}")
    line(f"sha256     {view.arguments_sha256}")
    line("arguments")
    for key, value in sorted(view.arguments.items()):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, indent=2)
        first, *rest = shown(text).split("\n")
        if not rest:
            line(f"  {shown_line(key)}: {first}")
            continue
        line(f"  {shown_line(key)}:")
        for part in (first, *rest):
            line(f"    | {part}")


def _brief(view: ApprovalView) -> str:
    for name in ("command", "file_path", "path", "url"):
        if isinstance(view.arguments.get(name), str):
            return shown_line(str(view.arguments[name]))
    return shown_line(json.dumps(view.arguments, ensure_ascii=False, sort_keys=True))


def _left(view: ApprovalView, now: float) -> str:
    return f", denied in {took(view.expires_at - now)}" if view.state is ApprovalState.WAITING else ""


def _said(view: ApprovalView) -> str:
    by = f" by {view.answered_by}" if view.answered_by else ""
    why = f": {shown_line(view.reason)}" if view.reason else ""
    return f"{by}{why}"

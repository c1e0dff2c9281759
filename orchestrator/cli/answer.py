"""Shows how an Invocation ended: its answer, where it ran, and the exit status of it all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape

from orchestrator.cli.content import PATCH, Part, is_error, parts_of, write_parts
from orchestrator.cli.desk import Desk
from orchestrator.cli.durations import size, took
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.screen import clean
from orchestrator.cli.shortid import short
from tasks.invocation import TERMINAL, State
from tasks.wire import InvocationView


def show_answer(desk: Desk, view: InvocationView, *, output: Path | None, as_json: bool) -> int:
    """The answer on standard output, how it went on standard error; returns the status."""
    written: list[tuple[Path, int]] = []
    parts = parts_of(view.result) if view.result else []
    if output is not None and view.result:
        written = list(write_parts(parts, output))
    if as_json:
        desk.screen.json(view)
        return status_of(view)
    for part in parts:
        _show_part(desk, part)
    for path, size_bytes in written:
        desk.screen.note(f"[dim]wrote[/] {escape(str(path))} [dim]{size(size_bytes)}[/]")
    if view.result:
        _say_run(desk, view.result)
    _say_how(desk, view)
    return status_of(view)


def status_of(view: InvocationView) -> int:
    """A tool that said `isError` failed, whatever the state says."""
    return Exit.FAILED if is_error(view.result) else of_state(view.state)


def _show_part(desk: Desk, part: Part) -> None:
    if part.note:
        desk.screen.line(part.note)
    if part.text and part.name == PATCH:
        desk.screen.diff(part.text)
    elif part.text:
        desk.screen.raw(part.text)


def _say_run(desk: Desk, result: Mapping[str, object]) -> None:
    """What an agent's answer has beside its words: session, cost, branch, and what could not be kept."""
    said = result.get("structuredContent")
    if not isinstance(said, Mapping) or not said.get("session_id"):
        return
    cost = said.get("cost_usd")
    told = [
        f"session {said['session_id']}",
        f"{said.get('turns', 0)} turns",
        f"${cost:.4f}" if isinstance(cost, int | float) else "cost unknown",
        *([f"branch {said['branch']}"] if said.get("branch") else []),
    ]
    desk.screen.note(f"[dim]{escape(clean(' · '.join(told)))}[/]")
    denials = said.get("denials")
    if isinstance(denials, list) and denials:
        desk.screen.note(f"[yellow]![/] denied: {escape(clean(', '.join(map(str, denials))))}")
    for name in ("push_error", "files_error"):
        error = said.get(name)
        if isinstance(error, Mapping):
            why = f"{error.get('message')} [{error.get('code')}]"
            desk.screen.note(f"[yellow]![/] {escape(clean(why))}")


def _say_how(desk: Desk, view: InvocationView) -> None:
    name = f"[bold]{escape(view.tool)}[/]"
    where = f" on [bold]{escape(view.node)}[/]" if view.node else ""
    time_s = took(view.ended_at - view.accepted_at) if view.ended_at else ""
    tries = f", {view.tries} tries" if view.tries > 1 else ""
    tail = f"[dim]· {short(view.id)}[/]"
    why = f": {escape(clean(view.error.message))} [dim]\\[{escape(view.error.code)}][/]" if view.error else ""
    note = desk.screen.note
    match view.state:
        case State.SUCCEEDED if not is_error(view.result):
            note(f"[green]✓[/] {name}{where} in {time_s}{tries} {tail}")
        case State.SUCCEEDED:
            note(f"[red]✗[/] {name}{where} answered with an error in {time_s}{tries} {tail}")
        case State.FAILED if view.result:
            note(f"[red]✗[/] {name}{where} answered with an error in {time_s}{tries} {tail}")
        case state if state in TERMINAL:
            note(f"[red]✗[/] {name}{where} {state} after {time_s}{tries}{why} {tail}")
            note(f"[dim]  mcpfleet show {short(view.id)}   mcpfleet retry {short(view.id)}[/]")
        case state:
            note(f"[yellow]…[/] {name} is still {state}{where}; mcpfleet result {short(view.id)} --wait 1m")

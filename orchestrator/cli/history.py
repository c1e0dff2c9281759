"""One Invocation in full: what it is, its attempts with their reasons, and what to do next."""

from __future__ import annotations

from rich.markup import escape
from rich.text import Text

from orchestrator.cli import paint
from orchestrator.cli.content import parts_of
from orchestrator.cli.cost import spent_lines
from orchestrator.cli.desk import Desk
from orchestrator.cli.durations import clock, took
from orchestrator.cli.screen import Cell, Column, clean
from orchestrator.cli.shortid import short
from tasks.invocation import TERMINAL, State
from tasks.wire import AttemptView, ExplainView, InvocationView

PREVIEW_LINES = 12
_ATTEMPTS = [
    Column("#", is_right=True),
    Column("NODE"),
    Column("ENDED AS"),
    Column("RELEASED"),
    Column("QUEUED", is_right=True),
    Column("RAN", is_right=True),
    Column("BECAUSE", is_wide=True, is_wrapped=True),
]


def show_history(desk: Desk, view: InvocationView) -> None:
    """`mcpfleet show`."""
    show = desk.screen.show
    show(Text.assemble(paint.tool(view.tool), "  ", paint.state(view.state), ("  " + view.id, "dim")))
    for name, value in _facts(view):
        show(Text.assemble((f"{name:<10}", "dim"), clean(value)))
    for line in spent_lines(view.spent):
        show(Text.assemble(("spent     ", "dim"), clean(line)))
    if view.error:
        show(Text.assemble(("error     ", "dim"), (clean(view.error.message), "red"), (f" [{view.error.code}]", "dim")))
    show_attempts(desk, view.attempts)
    _preview(desk, view)
    desk.screen.note(f"[dim]{_next(view)}[/]")


def show_explanation(desk: Desk, view: ExplainView) -> None:
    """`mcpfleet why`."""
    desk.screen.show(Text.assemble(paint.state(view.state), ("  " + view.id, "dim")))
    if view.summary not in ("", view.state):
        desk.screen.show(Text(clean(view.summary), "bold"))
    said: list[str] = []
    if view.reasons != [view.summary] and not any(view.reasons == attempt.reasons for attempt in view.attempts):
        _say_reasons(desk, view.reasons)
    for attempt in view.attempts:
        head = f"attempt {attempt.fence} → {attempt.node or f'any node of {attempt.pool}'}"
        desk.screen.show(Text.assemble((head, "bold"), "  ", paint.ending(attempt.ending)))
        _say_reasons(desk, ["for the same reasons"] if attempt.reasons == said else attempt.reasons)
        said = attempt.reasons
        if attempt.error:
            desk.screen.show(Text(f"  ✗ {clean(attempt.error.message)}", "red"))
    if view.trace_id:
        desk.screen.show(Text(f"trace {clean(view.trace_id)}", "dim"))
    if view.trace_url:
        desk.screen.show(Text(f"      {clean(view.trace_url)}", "dim"))


def _say_reasons(desk: Desk, reasons: list[str]) -> None:
    for reason in reasons:
        desk.screen.hung("  · ", reason)


def show_attempts(desk: Desk, attempts: list[AttemptView]) -> None:
    """A line per release."""
    if not attempts:
        return
    desk.screen.show("")
    desk.screen.table(_ATTEMPTS, [_attempt(attempt) for attempt in attempts])


def _attempt(attempt: AttemptView) -> list[Cell]:
    because = attempt.error.message if attempt.error else "".join(attempt.reasons[-1:])
    begun, ended = attempt.started_at, attempt.ended_at
    return [
        str(attempt.fence),
        attempt.node or f"({attempt.pool})",
        paint.ending(attempt.ending),
        clock(attempt.released_at),
        took(begun - attempt.released_at) if begun else "",
        took(ended - begun) if begun and ended else "",
        because,
    ]


def _facts(view: InvocationView) -> list[tuple[str, str]]:
    ended = f", ended after {took(view.ended_at - view.accepted_at)}" if view.ended_at else ""
    facts = [
        ("project", view.project or "none"),
        ("by", f"{view.principal} (tenant {view.tenant})"),
        ("accepted", f"{clock(view.accepted_at)}{ended}"),
        ("lane", f"{view.lane}, priority {view.priority}"),
    ]
    optional = [
        ("deadline", clock(view.expires_at)),
        ("not before", clock(view.not_before) if view.state is State.WAITING else ""),
        ("heard", clock(view.attempts[-1].heard_at) if view.attempts else ""),
        ("replay of", short(view.replay_of) if view.replay_of else ""),
        ("parent", _parent(view)),
        ("trace", view.trace_id or ""),
        ("", view.trace_url or ""),
        ("asks", ", ".join(f"mcpfleet approvals show {short(one)}" for one in view.approvals)),
        ("cancel", "asked for" if view.cancel_requested and view.state not in TERMINAL else ""),
    ]
    return facts + [(name, value) for name, value in optional if value]


def _parent(view: InvocationView) -> str:
    if view.parent is None:
        return ""
    began = f", all began with {short(view.root)}" if view.root not in (None, view.parent) else ""
    return f"{short(view.parent)} (depth {view.depth}{began})"


def _preview(desk: Desk, view: InvocationView) -> None:
    if not view.result:
        return
    desk.screen.show("")
    lines: list[str] = []
    for part in parts_of(view.result):
        lines += [part.note] if part.note else []
        lines += part.text.splitlines() if part.text else []
    for line in lines[:PREVIEW_LINES]:
        desk.screen.line(f"  {line}")
    if len(lines) > PREVIEW_LINES:
        desk.screen.note(f"[dim]  … {len(lines) - PREVIEW_LINES} more lines: mcpfleet result {short(view.id)}[/]")


def _next(view: InvocationView) -> str:
    name = escape(short(view.id))
    if view.state in (State.FAILED, State.LOST, State.EXPIRED):
        return f"mcpfleet why {name}   mcpfleet retry {name}"
    if view.state in TERMINAL:
        return f"mcpfleet why {name}"
    return f"mcpfleet why {name}   mcpfleet cancel {name}   mcpfleet show {name} --follow"

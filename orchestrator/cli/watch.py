"""Follows one Invocation to its end: live progress for a person, long polls otherwise.

A broken event stream is no failure: the ledger is asked instead.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from orchestrator.cli.api import EVENT_SILENCE_S, WAIT_MAX_S, Api
from orchestrator.cli.desk import Desk
from orchestrator.cli.durations import took
from orchestrator.cli.screen import clean
from orchestrator.cli.shortid import short
from tasks.errors import OrchestratorDown
from tasks.invocation import TERMINAL, Lane
from tasks.wire import EventView, InvocationView

QUIET_S = 0.3
"""Calls that answer sooner draw nothing: a flash of a bar is noise."""


def follow(desk: Desk, api: Api, view: InvocationView, *, wait_s: float | None) -> InvocationView:
    """The Invocation when it ended, or as it stands after `wait_s` seconds."""
    until = None if wait_s is None else time.monotonic() + wait_s
    if view.state in TERMINAL:
        return api.invocation(view.id)
    if desk.screen.is_live:
        view = api.invocation(view.id, _left(until, QUIET_S))
        if view.state not in TERMINAL:
            _draw(desk, api, view, until)
    return _poll(api, view, until)


def _poll(api: Api, view: InvocationView, until: float | None) -> InvocationView:
    while view.state not in TERMINAL or view.ended_at is None:
        left = _left(until, WAIT_MAX_S)
        view = api.invocation(view.id, left)
        if left <= 0:
            break
    # Who waited is answered from memory, with the last attempt only; the ledger knows them all.
    return api.invocation(view.id) if len(view.attempts) < view.fence else view


def _left(until: float | None, at_most: float) -> float:
    return at_most if until is None else max(0.0, min(at_most, until - time.monotonic()))


def _draw(desk: Desk, api: Api, view: InvocationView, until: float | None) -> None:
    bars = Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.fields[tool]}[/]"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=desk.screen.err,
        transient=True,
    )
    with bars:
        task = bars.add_task("waiting", total=None, tool=escape(view.tool))
        steps = _Steps()
        try:
            for event in api.events(view.id, _left(until, EVENT_SILENCE_S)):
                _apply(bars, task, event)
                if view.lane is Lane.AGENTS:
                    steps.show(bars, event)
                if until is not None and time.monotonic() >= until:
                    return
        except OrchestratorDown:
            return


@dataclass(slots=True)
class _Steps:
    """What an agent says and does stays on the screen, line by line; a tool's progress is one line that changes."""

    last: str = ""

    def show(self, bars: Progress, event: EventView) -> None:
        """Progress comes again after a broken stream: what was shown last is not shown twice."""
        message = event.data.get("message") if event.kind == "progress" else None
        if isinstance(message, str) and message and message != self.last:
            self.last = message
            for line in message.splitlines():
                bars.console.print(Text.assemble(("│ ", "dim"), clean(line)))


def _apply(bars: Progress, task: object, event: EventView) -> None:
    data = event.data
    match event.kind:
        case "progress":
            total = data.get("total", data.get("of"))
            message = escape(clean(str(data.get("message") or "running").splitlines()[-1]))
            bars.update(task, completed=data.get("progress", 0), total=total, description=message)  # type: ignore[arg-type]
        case "asked":
            asked = escape(clean(str(data.get("tool"))))
            name = short(str(data.get("approval")))
            bars.console.print(f"[yellow]?[/] it asks to use [bold]{asked}[/]: mcpfleet approve {name}")
            bars.update(task, description="waits for a person")  # type: ignore[arg-type]
        case "answered":
            bars.update(task, description=f"{escape(clean(str(data.get('tool'))))}: {data.get('answer')}")  # type: ignore[arg-type]
        case "released" | "running":
            where = escape(str(data.get("node") or data.get("pool") or "a node"))
            bars.update(task, description=f"{event.kind} on {where}")  # type: ignore[arg-type]
        case "retry":
            wait = data.get("wait_s")
            when = f" in {took(float(wait))}" if isinstance(wait, int | float) else ""
            bars.update(task, description=f"[yellow]trying again{when}[/]", completed=0, total=None)  # type: ignore[arg-type]

"""The processes of a local fleet as a list that fills in while they start and empties while they stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.cli.durations import took
from orchestrator.cli.screen import Screen
from orchestrator.local.fleet import Step

_DONE = {"ready": ("✓", "green"), "stopped": ("·", "dim")}
_WORDS = {
    "redis": "broker and streams, append-only",
    "orchestrator": "ledger, dispatch, doors",
    "flower": "every task, live",
}


class Checklist:
    """Drawn on a terminal; a line per event elsewhere."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._steps: dict[str, Step] = {}
        self._begun: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._live: Live | None = None

    def report(self, step: Step) -> None:
        """Something happened to a process."""
        now = time.monotonic()
        if step.state in ("starting", "stopping"):
            self._begun[step.name] = now
        self._took[step.name] = now - self._begun.get(step.name, now)
        self._steps[step.name] = step
        if self._live is not None:
            self._live.update(self._table())
        elif step.state not in ("starting", "stopping"):
            detail = f" {step.detail}" if step.detail else ""
            self._screen.note(f"{step.name}: {step.state}{detail}")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw while in here."""
        if not self._screen.is_live:
            yield
            return
        with Live(self._table(), console=self._screen.err, refresh_per_second=12) as self._live:
            try:
                yield
            finally:
                self._live.update(self._table())
        self._live = None

    def _table(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        for step in self._steps.values():
            if step.state in _DONE:
                glyph, style = _DONE[step.state]
                mark: Text | Spinner = Text(glyph, style)
            else:
                mark = Spinner("dots", style="cyan")
            words = step.detail or (_WORDS.get(step.name, "node") if step.state != "stopped" else "stopped")
            spent = took(self._took[step.name]) if step.state in _DONE else step.state
            style = "yellow" if step.detail == "killed" or step.state == "restarting" else "dim"
            grid.add_row(mark, Text(step.name, "bold"), Text(words, style), Text(spent, "dim", justify="right"))
        return grid

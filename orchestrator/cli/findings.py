"""What `mcpfleet doctor` found: one line per check, with how to mend it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from rich.text import Text

from orchestrator.cli.exits import Exit
from orchestrator.cli.screen import Screen, clean

ROOM_MIN = 20
"""Columns; a terminal narrower than that wraps as it likes."""


class Health(StrEnum):
    """`warn` is worth knowing and does not fail the command; `skip` could not be looked at."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


class Finding(BaseModel):
    """One check. `mend` is what to do; empty where nothing is."""

    model_config = ConfigDict(frozen=True)
    check: str
    health: Health
    detail: str
    mend: str = ""


_MARKS = {
    Health.OK: ("✓", "green"),
    Health.WARN: ("!", "yellow"),
    Health.FAIL: ("✗", "bold red"),
    Health.SKIP: ("-", "dim"),
}


def show_findings(screen: Screen, findings: list[Finding], *, as_json: bool) -> int:
    """Print them; the status fails if one of them does."""
    failed = [finding for finding in findings if finding.health is Health.FAIL]
    if as_json:
        screen.json(findings)
        return Exit.FAILED if failed else Exit.OK
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark, style = _MARKS[finding.health]
        head = Text.assemble((f"{mark} ", style), (finding.check.ljust(width), "bold"), "  ")
        _show_hanging(screen, head, Text(clean(finding.detail)))
        if finding.mend:
            _show_hanging(screen, Text(" " * (width + 4)), Text(f"→ {clean(finding.mend)}", "cyan"))
    screen.note("")
    screen.note(f"[red]{len(failed)} of {len(findings)} checks failed[/]" if failed else "[green]all is well[/]")
    return Exit.FAILED if failed else Exit.OK


def _show_hanging(screen: Screen, head: Text, body: Text) -> None:
    """`body` wrapped beside `head` on a terminal, on one line in a pipe."""
    if not screen.is_person:
        screen.line(f"{head.plain}{body.plain}")
        return
    room = max(ROOM_MIN, screen.out.width - head.cell_len)
    lines = body.wrap(screen.out, room)
    screen.show(Text("\n" + " " * head.cell_len).join([Text.assemble(head, lines[0] if lines else ""), *lines[1:]]))

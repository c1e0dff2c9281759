"""What `mcpfleet doctor` found: one line per check, with how to mend it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, computed_field
from rich.text import Text

from orchestrator.cli.exits import Exit
from orchestrator.cli.screen import Screen, clean

WARNINGS, FAULTS = 1, 2
"""Exit statuses of `mcpfleet doctor` alone."""
ROOM_MIN = 20
"""Columns; a terminal narrower than that wraps as it likes."""


class Health(StrEnum):
    """`warn` is worth mending and does not stop anything yet; `skip` could not be looked at."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


MANY = frozenset({"server", "certificate", "key", "disk", "tool"})
"""Checks of which there is one finding per thing looked at."""


class Finding(BaseModel):
    """One check. `mend` is what to do; empty where nothing is."""

    model_config = ConfigDict(frozen=True)
    check: str
    health: Health
    detail: str
    mend: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def id(self) -> str:
        """Stable, for scripts and for docs/doctor.md; a check of many things has one id."""
        first = self.check.partition(" ")[0]
        return first if first in MANY else self.check.replace(" ", "-")


_MARKS = {
    Health.OK: ("✓", "green"),
    Health.WARN: ("!", "yellow"),
    Health.FAIL: ("✗", "bold red"),
    Health.SKIP: ("-", "dim"),
}


def show_findings(screen: Screen, findings: list[Finding], *, as_json: bool) -> int:
    """Print them; the status is 0 where all is well, 1 for warnings, 2 for faults."""
    failed = [finding for finding in findings if finding.health is Health.FAIL]
    warned = [finding for finding in findings if finding.health is Health.WARN]
    status = FAULTS if failed else WARNINGS if warned else Exit.OK
    if as_json:
        screen.json(findings)
        return status
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark, style = _MARKS[finding.health]
        head = Text.assemble((f"{mark} ", style), (finding.check.ljust(width), "bold"), "  ")
        _show_hanging(screen, head, Text(clean(finding.detail)))
        if finding.mend:
            _show_hanging(screen, Text(" " * (width + 4)), Text(f"→ {clean(finding.mend)}", "cyan"))
    screen.note("")
    screen.note(_verdict(len(findings), len(failed), len(warned)))
    return status


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches it."""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _verdict(checks: int, failed: int, warned: int) -> str:
    if failed:
        return f"[red]{failed} of {checks} checks failed[/], {warned} warn; docs/doctor.md explains each"
    if warned:
        return f"[yellow]{warned} of {checks} checks warn[/]; docs/doctor.md explains each"
    return "[green]all is well[/]"


def _show_hanging(screen: Screen, head: Text, body: Text) -> None:
    """`body` wrapped beside `head` on a terminal, on one line in a pipe."""
    if not screen.is_person:
        screen.line(f"{head.plain}{body.plain}")
        return
    room = max(ROOM_MIN, screen.out.width - head.cell_len)
    lines = body.wrap(screen.out, room)
    screen.show(Text("\n" + " " * head.cell_len).join([Text.assemble(head, lines[0] if lines else ""), *lines[1:]]))

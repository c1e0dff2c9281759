"""Lines of processes' logs: read from files, understood, filtered, shown.

A line is JSON as `tasks/telemetry.py` writes it; what is not (Redis, Flower, a crash of the interpreter) keeps its
text and takes the time of the line before it. Refuses to know where files are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from orchestrator.cli.durations import clock
from orchestrator.cli.screen import clean
from orchestrator.local.logfile import masked

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 3, "exception": 3}
_STYLES = {"debug": "dim", "warning": "yellow", "error": "bold red", "critical": "bold red"}
_SHOWN_APART = frozenset({"event", "level", "timestamp", "process", "exception", "logger"})
READ_MAX_BYTES = 16 * 1024 * 1024
"""Of a file and of the one before it, from the end."""
NODE = "node "


@dataclass(frozen=True, slots=True)
class Line:
    """One line of one process."""

    at: float
    process: str
    level: str
    event: str
    raw: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines.

    Attributes:
        processes: by name, `orchestrator` or a node's; empty: all.
        words: one of them must stand in the line: an invocation's id, its trace id.
    """

    processes: frozenset[str] = frozenset()
    level: str = "debug"
    since: float = 0.0
    pattern: re.Pattern[str] | None = None
    words: tuple[str, ...] = ()

    def has(self, line: Line) -> bool:
        """Whether it is one of them."""
        return (
            line.at >= self.since
            and LEVELS.get(line.level, 1) >= LEVELS[self.level]
            and (not self.processes or line.process in self.processes)
            and (not self.words or any(word in line.raw for word in self.words))
            and (self.pattern is None or self.pattern.search(line.raw) is not None)
        )


def parse(text: str, process: str, before: float) -> Line:
    """One line, passwords in addresses masked.

    Args:
        text: without its end.
        process: whose file it is.
        before: when the line before it was written; of one that says no time itself.
    """
    text = masked(text)
    try:
        form = json.loads(text)
    except ValueError:
        form = None
    if not isinstance(form, dict) or "event" not in form:
        return Line(before, process, "info", text, text)
    said = str(form.get("process") or process).removeprefix(NODE)
    return Line(_at(form, before), said, str(form.get("level", "info")), str(form["event"]), text, form)


def shown(line: Line, width: int) -> Iterator[Text]:
    """As people read it: when, who, how bad, what; then its fields, and a traceback below."""
    style = _STYLES.get(line.level, "")
    fields = " ".join(f"{name}={_value(value)}" for name, value in line.fields.items() if name not in _SHOWN_APART)
    yield Text.assemble(
        (f"{clock(line.at)} ", "dim"),
        (f"{line.process:<{width}} ", "cyan"),
        (f"{line.level:<7} ", style),
        (clean(line.event), style or "bold"),
        (f"  {clean(fields)}" if fields else "", "dim"),
    )
    for part in str(line.fields.get("exception", "")).splitlines():
        yield Text(f"    {clean(part)}", "dim")


class Reader:
    """One growing file. Knows how far it was read, and that it may be emptied under it."""

    def __init__(self, path: Path, process: str) -> None:
        self._path, self._process = path, process
        self._read_to, self._last_at = 0, 0.0

    def history(self) -> Iterator[Line]:
        """What is in it and in the one before it; what is read then is new."""
        older = self._path.with_name(f"{self._path.name}.1")
        for path in (older, self._path):
            try:
                data = path.read_bytes()[-READ_MAX_BYTES:]
            except FileNotFoundError:
                continue
            self._last_at = self._last_at or path.stat().st_mtime
            whole = data[: data.rfind(b"\n") + 1]
            yield from self._lines(whole)
        try:
            self._read_to = self._path.stat().st_size - (len(data) - len(whole))
        except (FileNotFoundError, UnboundLocalError):
            self._read_to = 0

    def new(self) -> Iterator[Line]:
        """Whole lines since the last reading."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._read_to:
                    self._read_to = 0  # it was rotated
                file.seek(self._read_to)
                data = file.read(READ_MAX_BYTES)
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to += len(whole)
        yield from self._lines(whole)

    def _lines(self, data: bytes) -> Iterator[Line]:
        for text in data.decode(errors="replace").splitlines():
            if text.strip():
                line = parse(text, self._process, self._last_at)
                self._last_at = line.at
                yield line


class Folder:
    """All files of a local fleet's `logs` folder, also those of nodes that come later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._readers: dict[str, Reader] = {}

    def history(self) -> list[Line]:
        """Of all, in the order of time."""
        return sorted((line for reader in self._found() for line in reader.history()), key=lambda line: line.at)

    def new(self) -> list[Line]:
        """Of all since the last reading, in the order of time."""
        lines = [line for reader in self._found() for line in reader.new()]
        return sorted(lines, key=lambda line: line.at)

    def names(self) -> list[str]:
        """Processes that have a file."""
        return sorted(path.stem for path in self._path.glob("*.log"))

    def _found(self) -> Iterable[Reader]:
        for path in sorted(self._path.glob("*.log")):
            self._readers.setdefault(path.stem, Reader(path, path.stem))
        return list(self._readers.values())


def _at(form: Mapping[str, Any], before: float) -> float:
    try:
        return datetime.fromisoformat(str(form.get("timestamp"))).timestamp()
    except ValueError:
        return before


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return json.dumps(text, ensure_ascii=False) if " " in text and isinstance(value, str) else text

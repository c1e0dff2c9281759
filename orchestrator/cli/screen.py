"""What a person, a pipe or a script sees. Data goes to standard output, everything else to standard error.

Three forms of the same: colours and fitted tables on a terminal, aligned plain columns in a pipe,
JSON with `--json`. Honours NO_COLOR (through rich) and never writes to a pipe what only a terminal
understands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Terminal control characters; a tool's answer must not move the cursor or set the title."""

ROOMY_COLUMNS = 100
_GLYPHS = re.compile(r"^[◌◐●?✓✗⊘⧗!↺▰▱]+ ")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    is_right: bool = False
    is_wide: bool = False
    """Takes what room is left, and is cut with an ellipsis when there is too little."""
    is_wrapped: bool = False
    """Goes on in the next line instead of being cut."""


Cell = str | Text


class Screen:
    """The two streams of one command."""

    def __init__(self, out: TextIO, err: TextIO, *, environ: Mapping[str, str]) -> None:
        # rich reads NO_COLOR, TERM, COLUMNS … from what it is given here.
        self.out = Console(file=out, highlight=False, emoji=False, _environ=environ)
        self.err = Console(file=err, highlight=False, emoji=False, _environ=environ)

    @property
    def is_person(self) -> bool:
        """Whether standard output is a terminal."""
        return self.out.is_terminal

    @property
    def is_roomy(self) -> bool:
        """Whether there is room for more than words: a wide terminal."""
        return self.is_person and self.out.width >= ROOMY_COLUMNS

    @property
    def is_live(self) -> bool:
        """Whether progress can be drawn on standard error."""
        return self.err.is_terminal and not self.err.is_dumb_terminal

    def show(self, renderable: RenderableType) -> None:
        """Data, as rich draws it."""
        self.out.print(renderable)

    def line(self, text: str = "") -> None:
        """One line of data, unstyled and never wrapped."""
        self.out.print(Text(clean(text)), soft_wrap=True)

    def hung(self, head: str, text: str, style: str = "") -> None:
        """`text` beside `head`: what does not fit goes on below itself, in a pipe on the same line."""
        if not self.is_person:
            self.line(f"{head}{text}")
            return
        table = Table.grid()
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(Text(head, style), Text(clean(text)))
        self.out.print(table)

    def raw(self, text: str) -> None:
        """Text exactly as it is where a program reads it; without control characters on a terminal."""
        text = clean(text) if self.is_person else text
        self.out.file.write(text if text.endswith("\n") else f"{text}\n")
        self.out.file.flush()

    def diff(self, text: str) -> None:
        """A patch: coloured for a person, as it is for `git apply`."""
        if self.is_person:
            from rich.syntax import Syntax

            self.out.print(Syntax(clean(text), "diff", background_color="default", word_wrap=True))
        else:
            self.raw(text)

    def note(self, markup: str) -> None:
        """A remark for people, on standard error, in rich markup: escape what is not ours."""
        self.err.print(markup, soft_wrap=not self.err.is_terminal)

    def log(self, name: str, text: str) -> None:
        """One line of a process's log."""
        self.err.print(Text.assemble((f"{name:>12} │ ", "dim"), clean(text)), soft_wrap=True)

    def error(self, message: str) -> None:
        """One line: what, why, what to do."""
        self.err.print(f"[bold red]mcpfleet:[/] {escape(clean(' '.join(message.split())))}", soft_wrap=True)

    def json(self, value: BaseModel | Sequence[BaseModel] | object) -> None:
        """One JSON document, indented on a terminal, on one line in a pipe."""
        indent = 2 if self.is_person else None
        self.out.file.write(json.dumps(_plain(value), indent=indent, ensure_ascii=False) + "\n")
        self.out.file.flush()

    def json_line(self, value: BaseModel | object) -> None:
        """One line of NDJSON."""
        self.out.file.write(json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")) + "\n")
        self.out.file.flush()

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, empty: str = "") -> None:
        """A listing; `empty` says, to people, that there is nothing and why."""
        held = [list(row) for row in rows]
        if not held:
            if empty:
                self.note(f"[dim]{empty}[/]")
            return
        if self.is_person:
            self.out.print(table_of(columns, held))
        else:
            self._plain_table(columns, held)

    def _plain_table(self, columns: Sequence[Column], rows: list[list[Cell]]) -> None:
        lines = [[column.title for column in columns], *([_bare(cell) for cell in row] for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
        for line in lines:
            cells = (
                cell.rjust(width) if column.is_right else cell.ljust(width)
                for cell, width, column in zip(line, widths, columns, strict=True)
            )
            self.out.file.write("  ".join(cells).rstrip() + "\n")


def table_of(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> Table:
    """A table as rich draws it on a terminal: no frame, a quiet head, no column that is empty throughout."""
    held = [list(row) for row in rows]
    used = [n for n, column in enumerate(columns) if column.is_wide or any(str(row[n]) for row in held)]
    columns, held = [columns[n] for n in used], [[row[n] for n in used] for row in held]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim bold")
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.is_right else "left",
            no_wrap=not column.is_wrapped,
            overflow="fold" if column.is_wrapped else "ellipsis",
            ratio=1 if column.is_wide else None,
            min_width=None if column.is_wide else len(column.title),
        )
    table.expand = any(column.is_wide for column in columns)
    for row in held:
        table.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
    return table


def _bare(cell: Cell) -> str:
    """Without the glyphs that only guide the eye."""
    return _GLYPHS.sub("", cell.plain) if isinstance(cell, Text) else clean(cell)


def clean(text: str) -> str:
    """Text without control characters, newlines and tabs kept."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value

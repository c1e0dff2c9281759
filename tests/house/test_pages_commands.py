"""What the pages tell a reader to type, and where their links land inside a page."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import typer

from orchestrator.cli.main import build

COMMAND = re.compile(r"(?:`|\$ |^    |^\$? ?)mcpfleet ([a-z][^`\n|>#…;&]*)", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#]*)#([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


@cache
def _tree() -> object:
    return typer.main.get_command(build())


def _unknown(words: list[str]) -> str | None:
    """The first word that the command line does not know as a command or an option."""
    at: Any = _tree()
    for word in words:
        if word.startswith("-"):
            known = {"-h", "--help"} | {name for one in at.params for name in (*one.opts, *one.secondary_opts)}
            if word.partition("=")[0] not in known:
                return word
        elif hasattr(at, "commands"):
            if word not in at.commands:
                return word
            at = at.commands[word]
    return None


def _anchors(page: str) -> set[str]:
    """As GitHub makes them of headings."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCED.sub("", page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def test_commands_in_pages_exist(tracked: list[Path], root: Path) -> None:
    """Who types what a page says is not told that there is no such command."""
    wrong = [
        f"{page.relative_to(root)}: mcpfleet {text.strip()} ({word})"
        for page in tracked
        if page.suffix == ".md" and "adr" not in page.parts
        for text in COMMAND.findall(page.read_text())
        if (word := _unknown([word.rstrip(",.:)") for word in text.split()])) is not None
    ]
    assert not wrong


def test_links_into_pages_land(tracked: list[Path], root: Path) -> None:
    """A renamed heading takes its links along."""
    lost = [
        f"{page.relative_to(root)} -> {name}#{anchor}"
        for page in tracked
        if page.suffix == ".md"
        for name, anchor in LINK.findall(FENCED.sub("", page.read_text()))
        if "://" not in name
        for target in [(page.parent / name).resolve() if name else page]
        if target.suffix == ".md" and target.exists() and anchor not in _anchors(target.read_text())
    ]
    assert not lost

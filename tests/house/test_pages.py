"""The pages: what they link to and name exists, and nothing of one machine is in the tree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PAGE_PATH = re.compile(
    r"\b(?:docs|deploy|ansible|benchmarks|requirements|tests)/[\w./-]*\.(?:md|txt|toml|yml|yaml|json|py)\b"
)
OUR_PATH = re.compile(r"`((?:tasks|orchestrator|worker|tests|docs|benchmarks|deploy)/[\w./-]+?\.\w+)`")
MADE_WHEN_RUN = frozenset({"benchmarks/results/latest.json", "benchmarks/results/agents.json"})
MACHINE_PATHS = re.compile(
    r"/(?:work|root)/|/home/(?!node\b|mcpfleet\b)\w|/Users/\w|/tmp/(?:v|plan)/|--(?:extra-)?index-url\b|\bPIP_INDEX|"
    r"registry\.npmjs|files\.pythonhosted|pypi\.org/simple"
)
TEXT = frozenset({".py", ".md", ".toml", ".txt", ".json", ".yml", ".yaml", ".cfg", ".ini", ".sh", ".in", ".mako", ""})
CODE = re.compile(r'^    code(?:: [^=]+)? = "(\w+)"$', re.MULTILINE)
"""A class attribute: `tasks.errors.FleetError.code`."""
OWN_PATTERNS = "tests/house/test_pages.py"


class Source(Protocol):
    """What these tests read of a file."""

    name: str
    text: str


def test_relative_links_resolve(tracked: list[Path]) -> None:
    """A reader who follows a link arrives."""
    broken = [
        f"{page.name} -> {target}"
        for page in tracked
        if page.suffix == ".md"
        for target in LINK.findall(page.read_text())
        if "://" not in target and not target.startswith(("#", "mailto:"))
        if not (page.parent / target.partition("#")[0]).exists()
    ]
    assert not broken


def test_paths_named_in_code_exist(sources: list[Source], root: Path) -> None:
    """`Source: docs/adr/…` in a docstring leads somewhere."""
    gone = sorted(
        f"{source.name} -> {path}"
        for source in sources
        if not source.name.startswith("tests/house/")  # they name what must not be
        for path in set(PAGE_PATH.findall(source.text)) - MADE_WHEN_RUN
        if not (root / path).exists()
    )
    assert not gone


def test_paths_named_in_pages_exist(tracked: list[Path], root: Path) -> None:
    """A page that names a file names one that is there."""
    gone = sorted(
        f"{page.relative_to(root)} -> {path}"
        for page in tracked
        if page.suffix == ".md"
        for path in set(OUR_PATH.findall(page.read_text())) - MADE_WHEN_RUN
        if not (root / path).exists()
    )
    assert not gone


def test_nothing_of_one_machine_is_in_the_tree(tracked: list[Path], root: Path) -> None:
    """No home directory, scratch path or registry host: a clone works anywhere, from any index."""
    found = [
        f"{path.relative_to(root)}:{number}"
        for path in tracked
        if path.suffix in TEXT and path.relative_to(root).as_posix() != OWN_PATTERNS
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert not found


def test_readme_names_the_two_commands(root: Path) -> None:
    """A newcomer finds `make demo` and `make test` on the first screen."""
    screen = (root / "README.md").read_text().splitlines()[:40]
    assert {"make demo", "make test"} <= {
        word for line in screen for word in ("make demo", "make test") if word in line
    }


def test_every_error_code_is_explained(ours: list[Source], root: Path) -> None:
    """docs/errors.md has the code of every error class, so whoever meets one finds what to do."""
    page = (root / "docs/errors.md").read_text()
    codes = {code for source in ours for code in CODE.findall(source.text)}
    assert not sorted(code for code in codes if f"`{code}`" not in page)


def test_adrs_are_numbered_without_a_gap(root: Path) -> None:
    """Decisions are counted from 0001."""
    numbers = sorted(int(page.name[:4]) for page in (root / "docs/adr").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))

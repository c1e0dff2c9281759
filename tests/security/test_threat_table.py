"""docs/threats.md says which test proves what: each of them exists, and no row goes without."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
GONE = "test_gone"
ROW = re.compile(r"^\| (\d+) \|(.*)\|$", re.MULTILINE)


def page() -> str:
    """The threat model."""
    return (ROOT / "docs/threats.md").read_text()


def written_in(path: Path) -> set[str]:
    """Functions that pytest would collect there."""
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    return {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


def missing_of(text: str) -> list[str]:
    """Tests that a page names and nobody wrote."""
    named = set(NAMED.findall(text))
    return sorted(f"{file}::{name}" for file, name in named if name not in written_in(ROOT / file))


def test_every_test_that_the_table_names_exists() -> None:
    """A control without its test is a promise."""
    missing = missing_of(page())
    assert not missing


def test_every_threat_has_a_test_and_its_number() -> None:
    """Rows are counted from 1, have four more cells, and name at least one test."""
    rows = ROW.findall(page())
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 12
    for number, cells in rows:
        assert cells.count(" | ") == 3, f"threat {number} has other cells"
        assert NAMED.search(cells), f"threat {number} names no test"


@pytest.mark.parametrize("name", [f"tests/security/{GONE}.py::test_a", f"tests/security/test_edges.py::{GONE}"])
def test_a_test_that_is_gone_is_found(name: str) -> None:
    """The check itself, of a file and of a function."""
    assert missing_of(f"see `{name}`") == [name]

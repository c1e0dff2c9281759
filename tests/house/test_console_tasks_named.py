"""docs/console.md lists an operator's tasks, each with the test that does it in a browser."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (\d+) \| .* \| ([to]) `(test_\w+)` \|$", re.MULTILINE)
FILES = {"t": "tests/browser/test_console_tasks.py", "o": "tests/browser/test_console_operator.py"}


def test_each_task_of_an_operator_has_its_test() -> None:
    """Ten at least, numbered, each with a test of its own that is there."""
    rows = ROW.findall((ROOT / "docs/console.md").read_text())
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 10
    assert len({name for _, _, name in rows}) == len(rows)
    there = {letter: _written_in(ROOT / path) for letter, path in FILES.items()}
    assert not [name for _, letter, name in rows if name not in there[letter]]


def _written_in(path: Path) -> set[str]:
    return {one.name for one in ast.parse(path.read_text()).body if isinstance(one, ast.FunctionDef)}

"""The shape of every file: how long, how nested, and that it says what it is for."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Protocol

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 40


class Source(Protocol):
    """What these tests read of a file."""

    name: str
    text: str
    tree: ast.Module
    nodes: list[ast.AST]


def test_no_file_is_two_modules(sources: list[Source]) -> None:
    """A file past 400 lines is split before it is read by anybody."""
    long = {source.name: lines for source in sources if (lines := source.text.count("\n")) > FILE_LINES_MAX}
    assert not long


def test_every_function_fits_on_a_screen(sources: list[Source]) -> None:
    """Signature and docstring aside, a function's code is 40 lines at most."""
    long = {
        f"{source.name}:{node.lineno} {node.name}": lines
        for source in sources
        for node in source.nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := _code_lines(node)) > FUNCTION_LINES_MAX
    }
    assert not long


def test_every_module_says_what_it_owns(sources: list[Source]) -> None:
    """A module without a docstring has no owner for its purpose; an empty package file needs none."""
    silent = [source.name for source in sources if source.text.strip() and not ast.get_docstring(source.tree)]
    assert not silent


def test_tests_are_no_package(root: Path) -> None:
    """`tests/tasks/__init__.py` would shadow the real package, and no other is needed either."""
    assert not list((root / "tests").rglob("__init__.py"))


def test_test_files_have_names_of_their_own(sources: list[Source]) -> None:
    """Failures name a file by its last part: two `test_join.py` would be told apart by nobody."""
    names = [source.name.rpartition("/")[2] for source in sources if source.name.startswith("tests/")]
    tests = [name for name in names if name.startswith("test_")]
    assert sorted(tests) == sorted(set(tests))


def test_every_test_says_which_promise_it_keeps(sources: list[Source]) -> None:
    """Each test function has a docstring."""
    silent = [
        f"{source.name}:{node.lineno} {node.name}"
        for source in sources
        if source.name.startswith("tests/")
        for node in source.nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0

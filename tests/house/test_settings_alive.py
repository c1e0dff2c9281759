"""Every setting is used, and documented where an operator looks."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from typing import Protocol


class Source(Protocol):
    """What these tests read of a file."""

    name: str
    tree: ast.Module
    nodes: list[ast.AST]


def test_no_setting_is_dead(ours: list[Source]) -> None:
    """A field that no code reads is a promise to operators that nothing keeps."""
    read = {
        node.attr
        for source in ours
        for node in source.nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    dead = [f"{where}.{field}" for where, field in _fields(ours) if field not in read]
    assert not dead


def test_the_reference_is_what_the_code_says(root: Path) -> None:
    """docs/settings.md is what `make docs` would write: no field, default or meaning is out of date."""
    script = runpy.run_path(str(root / "tests/house/settings_page.py"))
    stale = set((root / "docs/settings.md").read_text().splitlines()) ^ set(script["page"]().splitlines())
    assert not sorted(stale), "make docs writes it again"


def test_every_setting_has_a_reason(root: Path) -> None:
    """What an operator may decide says what it decides."""
    script = runpy.run_path(str(root / "tests/house/settings_page.py"))
    rows = [
        row
        for _, path, model, prefix in script["SECTIONS"]
        for row in script["settings_of"](root / path, model, prefix)
    ]
    assert rows
    assert not [row.variable for row in rows if not row.meaning]


def _fields(ours: list[Source]) -> list[tuple[str, str]]:
    return [
        (f"{source.name}:{model.name}", field.target.id)
        for source in ours
        if source.name.endswith("settings.py")
        for model in source.tree.body
        if isinstance(model, ast.ClassDef)
        for field in model.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]

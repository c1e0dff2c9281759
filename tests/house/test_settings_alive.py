"""Every setting is used, and documented where an operator looks."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Protocol


class Source(Protocol):
    """What these tests read of a file."""

    name: str
    tree: ast.Module


def test_no_setting_is_dead(ours: list[Source]) -> None:
    """A field that no code reads is a promise to operators that nothing keeps."""
    read = {
        node.attr
        for source in ours
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    dead = [f"{where}.{field}" for where, field in _fields(ours) if field not in read]
    assert not dead


def test_every_setting_is_in_the_reference(ours: list[Source], root: Path) -> None:
    """docs/settings.md names each variable that a process reads from its environment."""
    page = (root / "docs/settings.md").read_text()
    prefixes = {"orchestrator/settings.py": "MCPFLEET_", "worker/settings.py": "MCPFLEET_NODE_"}
    missing = [
        variable
        for where, field in _fields(ours)
        if (prefix := prefixes.get(where.partition(":")[0])) and f"`{(variable := prefix + field.upper())}`" not in page
    ]
    assert not missing


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

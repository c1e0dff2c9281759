"""Every public method says what it is for. ruff's D102 asks it of Protocols too, whose class says it."""

from __future__ import annotations

import ast
from typing import Protocol


class Source(Protocol):
    """What this test reads of a file."""

    name: str
    nodes: list[ast.AST]


def _is_protocol(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).split("[")[0] in {"Protocol", "typing.Protocol"} for base in node.bases)


def _is_stub(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return len(method.body) == 1 and ast.unparse(method.body[0]) == "..."


def test_public_methods_say_what_they_are_for(ours: list[Source]) -> None:
    """A bare signature is enough only in a Protocol: its class and the one who implements it explain it."""
    silent = [
        f"{source.name}:{method.lineno} {owner.name}.{method.name}"
        for source in ours
        for owner in source.nodes
        if isinstance(owner, ast.ClassDef) and not owner.name.startswith("_")
        for method in owner.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        and not method.name.startswith("_")
        and ast.get_docstring(method) is None
        and not (_is_protocol(owner) and _is_stub(method))
    ]
    assert silent == []

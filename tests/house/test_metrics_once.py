"""Each metric has one owner."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Protocol

KINDS = frozenset({"Counter", "Gauge", "Histogram", "Summary", "Info"})


class Source(Protocol):
    """What these tests read of a file."""

    name: str
    tree: ast.Module
    nodes: list[ast.AST]


def test_each_metric_is_declared_once_per_process(ours: list[Source]) -> None:
    """Orchestrator and worker may share a name on two `/metrics`; inside one process it has one owner."""
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for source in ours:
        for name in _declared(source):
            owners[source.name.partition("/")[0], name].append(source.name)
    assert not {key: where for key, where in owners.items() if len(where) > 1}


def test_metric_names_carry_our_prefix(ours: list[Source]) -> None:
    """`mcp_` for what every MCP server has, `mcpfleet_` for what only a fleet has."""
    strangers = [name for source in ours for name in _declared(source) if not name.startswith(("mcp_", "mcpfleet_"))]
    assert not strangers


def _declared(source: Source) -> list[str]:
    return [
        node.args[0].value
        for node in source.nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) in KINDS
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]

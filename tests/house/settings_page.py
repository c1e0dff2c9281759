"""Writes docs/settings.md from the settings classes: `make docs`. The house test compares.

The words are those beside each field in the code, so that page and code cannot part.
"""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = (
    ("Orchestrator", "orchestrator/settings.py", "OrchestratorSettings", "MCPFLEET_"),
    ("Node", "worker/settings.py", "NodeSettings", "MCPFLEET_NODE_"),
    ("Flower", "orchestrator/flower/settings.py", "FlowerSettings", "MCPFLEET_FLOWER_"),
)
HEAD = """# Settings

Read once, at start, from the environment. Durations are in seconds (`_s`), sizes in bytes (`_bytes`).
A variable that begins with `MCPFLEET_` and is not in this list stops the start: a typing error must
not look like a default. `make docs` writes this page from the code.

Every variable of the orchestrator, of a node and of Flower can also be given by a file: `MCPFLEET_TOKEN_FILE`
names a file with the value of `MCPFLEET_TOKEN`. That is how secrets reach a container: its environment is shown
to whoever may inspect it.
"""
CLIENT = """
## Command line and client

| variable | meaning |
|---|---|
| `MCPFLEET_URL` | where the orchestrator answers; without it the fleet that `mcpfleet up` wrote down |
| `MCPFLEET_TOKEN` | the bearer token of the doors |
| `MCPFLEET_TOKEN_FILE` | a file with it, read at every start; for a key that `mcpfleet keys rotate --file` replaces |
| `MCPFLEET_STATE_DIR` | state of a local fleet; `mcpfleet` below `$XDG_STATE_HOME`, else below `~/.local/state` |
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row."""

    variable: str
    default: str
    meaning: str


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, path, model, prefix in SECTIONS:
        parts.append(f"\n## {title}\n\n| variable | default | meaning |\n|---|---|---|")
        rows = settings_of(ROOT / path, model, prefix)
        parts.extend(f"| `{row.variable}` | {row.default} | {row.meaning} |" for row in rows)
    return "\n".join(parts) + "\n" + CLIENT


def settings_of(path: Path, model: str, prefix: str) -> list[Setting]:
    """Fields of one class: the default it has, and the string that follows it in the code."""
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    kind: type[BaseModel] = getattr(module, model)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == model).body
    return [
        Setting(f"{prefix}{field.target.id.upper()}", _default(kind.model_fields[field.target.id]), _meaning(after))
        for field, after in zip(body, [*body[1:], None], strict=True)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default_factory is not None and field.default_factory not in (dict, list):
        return "see there"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{value}`" if value or isinstance(value, int | float) else "none"


def _meaning(after: ast.stmt | None) -> str:
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
        return " ".join(after.value.value.split())
    return ""


if __name__ == "__main__":
    (ROOT / "docs/settings.md").write_text(page(), encoding="utf-8")

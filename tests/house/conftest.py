"""The tree as the house tests read it: every file that is, or is about to be, committed."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tasks", "orchestrator", "worker")


@dataclass(frozen=True)
class Source:
    """One Python file, parsed once."""

    path: Path
    name: str
    """Relative to the repository, with slashes."""

    @cached_property
    def text(self) -> str:
        """Its text."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, filename=self.name)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree: walked once, looked at by many tests."""
        return list(ast.walk(self.tree))

    @property
    def is_ours(self) -> bool:
        """In one of the three packages, and not in tests or benchmarks."""
        return self.name.startswith(tuple(f"{package}/" for package in PACKAGES))

    def imports(self) -> set[str]:
        """Dotted names of what it imports, `from a import b` counted as `a` and `a.b`."""
        return self._imports

    @cached_property
    def _imports(self) -> set[str]:
        found = set()
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return found


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Every file git tracks or would add, absolute, in order."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0 and listing.stdout:
        found = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:  # an unpacked archive: no git, so nothing generated either
        found = [p for p in ROOT.rglob("*") if not {".git", ".venv", ".cache", "__pycache__"} & set(p.parts)]
    return sorted(path for path in found if path.is_file())


@pytest.fixture(scope="session")
def sources(tracked: list[Path]) -> list[Source]:
    """Every Python file."""
    return [Source(path, path.relative_to(ROOT).as_posix()) for path in tracked if path.suffix == ".py"]


@pytest.fixture(scope="session")
def ours(sources: list[Source]) -> list[Source]:
    """Python files of the three packages."""
    return [source for source in sources if source.is_ours]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT

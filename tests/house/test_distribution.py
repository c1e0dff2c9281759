"""The three generic names belong to us: packaging never lets a stranger's `tasks` in."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Protocol

import pytest

PACKAGES = ("tasks", "orchestrator", "worker")
OPTIONAL = frozenset({"pytest", "jsonschema", "opentelemetry"})
"""Imported by shipped testing packages only, which tests use."""
USED_BY_OTHERS = {
    "hiredis": "redis parses replies with it where it is there",
    "httptools": "uvicorn parses requests with it where it is there",
    "psycopg": "SQLAlchemy loads it by the ledger's URL",
    "sniffio": "httpcore asks it at every lock",
}


class Source(Protocol):
    """What these tests read of a file."""

    name: str

    def imports(self) -> set[str]:
        """Dotted names."""
        ...


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_ours(package: str, root: Path) -> None:
    """`import tasks` finds this tree, or the installed mcpfleet, and nothing else of that name."""
    found = Path(importlib.import_module(package).__file__ or "").resolve()
    assert found == root / package / "__init__.py" or found in _installed_files()


def test_no_other_distribution_brings_our_packages() -> None:
    """A second `tasks` in site-packages would overwrite files of ours, or shadow them."""
    owners = metadata.packages_distributions()
    assert not {p: o for p in PACKAGES if (o := set(owners.get(p, [])) - {"mcpfleet"})}


def test_wheel_has_the_three_packages_and_no_more(root: Path) -> None:
    """Tests and benchmarks never reach a user's site-packages."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(PACKAGES)


def test_commands_never_carry_a_generic_name(root: Path) -> None:
    """Commands begin with mcpfleet and lead to a function that is there."""
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert all(name.startswith("mcpfleet") for name in scripts)
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_every_import_is_declared(ours: list[Source], root: Path) -> None:
    """What we import, we name in pyproject.toml: a dependency's dependency may be gone tomorrow."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    declared = {_normal(re.split(r"[\[<>=;~! ]", need)[0]) for need in wanted}
    brought_by = metadata.packages_distributions()
    missing = {
        f"{source.name}: {top}"
        for source in ours
        for top in {name.partition(".")[0] for name in source.imports()}
        if top not in sys.stdlib_module_names and top not in PACKAGES and top not in OPTIONAL
        if not declared & {_normal(owner) for owner in brought_by.get(top, [])}
    }
    assert not sorted(missing)


def test_every_dependency_is_used(ours: list[Source], root: Path) -> None:
    """What nobody imports is not installed on every node, unless it is listed here with its reason."""
    brought_by = metadata.packages_distributions()
    tops = {name.partition(".")[0] for source in ours for name in source.imports()}
    used = {_normal(owner) for top in tops for owner in brought_by.get(top, [])}
    assert not sorted(_declared(root) - used - set(USED_BY_OTHERS))


def _declared(root: Path) -> set[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    return {_normal(re.split(r"[\[<>=;~! ]", need)[0]) for need in wanted}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _installed_files() -> set[Path]:
    try:
        files = metadata.files("mcpfleet") or []
    except metadata.PackageNotFoundError:
        return set()
    return {Path(str(file.locate())).resolve() for file in files}

"""The three generic names belong to us: packaging never lets a stranger's `tasks` in."""

from __future__ import annotations

import importlib
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

PACKAGES = ("tasks", "orchestrator", "worker")


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


def _installed_files() -> set[Path]:
    try:
        files = metadata.files("mcpfleet") or []
    except metadata.PackageNotFoundError:
        return set()
    return {Path(str(file.locate())).resolve() for file in files}

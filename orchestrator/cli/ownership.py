"""Are `tasks`, `orchestrator` and `worker` ours? Their names are generic, and taken on PyPI.

Installing a package called `tasks` silently overwrites our `tasks/__init__.py`; a stray directory of that
name on the import path shadows it. Every start asks, and refuses; `mcpfleet doctor` explains.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from tasks.errors import SettingsError

PACKAGES = ("tasks", "orchestrator", "worker")
DISTRIBUTION = "mcpfleet"


@dataclass(frozen=True, slots=True)
class Ownership:
    """What was found. `fault` is empty where all is well; `mend` says what to do otherwise."""

    fault: str
    mend: str
    is_installed: bool
    root: Path


def look() -> Ownership:
    """Who owns our three packages in this interpreter."""
    owners = metadata.packages_distributions()
    roots = {Path(str(import_module(name).__file__)).resolve().parent.parent for name in PACKAGES}
    strangers = {name: sorted(set(owners.get(name, [])) - {DISTRIBUTION}) for name in PACKAGES}
    is_installed = all(DISTRIBUTION in owners.get(name, []) for name in PACKAGES) or _is_editable(roots)
    fault = mend = ""
    if any(strangers.values()):
        fault = "; ".join(f"{name} also belongs to {', '.join(others)}" for name, others in strangers.items() if others)
        others = sorted({other for found in strangers.values() for other in found})
        mend = f"pip uninstall {' '.join(others)} && pip install --force-reinstall {DISTRIBUTION}"
    elif len(roots) > 1:
        fault = f"imported from different places: {', '.join(sorted(map(str, roots)))}"
        mend = "remove what shadows them from PYTHONPATH and the working directory"
    return Ownership(fault, mend, is_installed, min(roots))


def require() -> None:
    """Before anything is started.

    Raises:
        SettingsError: a package is not ours alone.
    """
    found = look()
    if found.fault:
        raise SettingsError(f"our packages are not ours alone: {found.fault}; {found.mend}")


def _is_editable(roots: set[Path]) -> bool:
    """Whether our distribution is installed as a link to the only place they are imported from.

    Source: PEP 610, direct_url.json.
    """
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return False
    return bool(text) and {root.as_uri() for root in roots} == {json.loads(text or "{}").get("url")}

"""Who may import whom. The packages' contracts are in pyproject.toml; here are the finer ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

WIRING = frozenset({"bootstrap", "fleet", "cli", "local", "testing", "loops", "main", "settings", "views"})
"""May know every domain: they put them together."""
SHARED_WORDS = (
    "orchestrator.ledger.values",
    "orchestrator.ledger.approval_values",
    "orchestrator.ledger.secret_values",
    "orchestrator.ledger.key_values",
    "orchestrator.ledger.grant_values",
    "orchestrator.ledger.oauth_values",
    "orchestrator.ledger.audit_values",
    "orchestrator.ledger.dead_values",
    "orchestrator.ledger.errors",
    "orchestrator.ledger.guest",
    "orchestrator.identity.tokens",
)
"""Words the domains speak among themselves: what the ledger takes and gives, without SQL, and what a token is."""
PURE = (
    "tasks/retry.py",
    "orchestrator/dispatch/route.py",
    "orchestrator/dispatch/spread.py",
    "orchestrator/dispatch/affinity.py",
    "orchestrator/dispatch/backlog.py",
    "orchestrator/settling/verdict.py",
    "orchestrator/autoscaler/decide/decision.py",
    "orchestrator/autoscaler/decide/history.py",
    "orchestrator/autoscaler/decide/limits.py",
    "orchestrator/autoscaler/decide/needs.py",
    "orchestrator/autoscaler/decide/queueing.py",
    "orchestrator/autoscaler/decide/replay.py",
    "orchestrator/autoscaler/decide/season.py",
    "orchestrator/autoscaler/decide/signs.py",
    "orchestrator/autoscaler/decide/slo.py",
    "orchestrator/autoscaler/decide/threshold.py",
    "orchestrator/autoscaler/decide/victims.py",
    "orchestrator/autoscaler/decide/wish.py",
)
DOES_IO = frozenset(
    {"redis", "sqlalchemy", "celery", "kombu", "httpx", "asyncio", "os", "socket", "threading", "random", "time"}
)


class Source(Protocol):
    """What these tests read of a file."""

    name: str

    def imports(self) -> set[str]:
        """Dotted names."""
        ...


def test_domains_do_not_import_each_other(ours: list[Source]) -> None:
    """A domain declares the Protocol it needs; only the wiring knows two of them."""
    folders = {
        source.name.split("/")[1] for source in ours if source.name.count("/") > 1 and source.name.startswith("orch")
    }
    domains = folders - WIRING
    crossings = [
        f"{source.name} imports {name}"
        for source in ours
        if (home := _domain(source.name)) in domains
        for name in sorted(source.imports())
        if _domain(name.replace(".", "/") + "/") in domains - {home} and not name.startswith(SHARED_WORDS)
    ]
    assert not crossings


def test_decisions_are_pure(ours: list[Source]) -> None:
    """What decides takes values and gives values: no clock, no chance, no wire."""
    impure = {
        source.name: sorted(wrong)
        for source in ours
        if source.name in PURE and (wrong := {name for name in source.imports() if name.partition(".")[0] in DOES_IO})
    }
    assert not impure


def test_pure_modules_are_where_we_look(root: Path) -> None:
    """A renamed pure module must not fall out of the check."""
    assert not [name for name in PURE if not (root / name).exists()]


def test_import_contracts_hold(root: Path) -> None:
    """`lint-imports` keeps the three packages apart."""
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("import-linter is not installed (make setup)")
    run = subprocess.run([program, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def _domain(path: str) -> str:
    parts = path.split("/")
    return parts[1] if parts[0] == "orchestrator" and len(parts) > 2 else ""

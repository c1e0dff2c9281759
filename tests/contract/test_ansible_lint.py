"""Roles and playbooks as Ansible's own judges read them; nothing is run on a machine (`make ansible-check` does)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import tool

FOLDER = Path(__file__).parents[2] / "ansible"
WITHIN_S = 280.0

pytestmark = [pytest.mark.live("ansible", "ansible-lint"), pytest.mark.timeout(300)]


def test_ansible_lint_finds_nothing_in_its_strictest_profile(tmp_path: Path) -> None:
    """What the profile `production` asks of roles that others run."""
    said = _said(tmp_path, "ansible-lint", "--offline", "--profile", "production", "--nocolor")
    assert "Passed" in said


def test_every_playbook_is_understood(tmp_path: Path) -> None:
    """Syntax, and that every role and file of tasks that it names is there."""
    playbooks = sorted(path.name for path in FOLDER.glob("*.yml"))
    said = _said(tmp_path, "ansible-playbook", "--syntax-check", "-i", "nowhere,", *playbooks)
    assert [f"playbook: {name}" for name in playbooks] == [line for line in said.splitlines() if "playbook:" in line]


def _said(home: Path, name: str, *words: str) -> str:
    program = tool(name)
    assert program is not None
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
        "PATH": f"{Path(program).parent}:{os.environ['PATH']}",
        "ANSIBLE_HOME": str(home),
        # Molecule's playbooks name machines of its own, which no inventory of a fleet has.
        "ANSIBLE_HOST_PATTERN_MISMATCH": "warning",
        "XDG_CACHE_HOME": str(home),
    }
    done = subprocess.run(
        [program, *words], cwd=FOLDER, env=environ, check=False, capture_output=True, text=True, timeout=WITHIN_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr

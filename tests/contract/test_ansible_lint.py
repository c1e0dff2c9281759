"""Roles and playbooks as Ansible's own judges read them; nothing is run on a machine (`make ansible-check` does).

One run of ansible-lint, which has Ansible check the syntax of each playbook and role in a process of its own: that is
where its time goes. Molecule's playbooks are linted by `make ansible-check`, which runs them.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import tool

FOLDER = Path(__file__).parents[2] / "ansible"
WITHIN_S = 280.0

pytestmark = [pytest.mark.live("ansible-lint"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What it said of everything, for both tests."""
    done = _linted(tmp_path_factory.mktemp("home"))
    words = done.stdout + done.stderr
    assert done.returncode == 0, words
    return words


def test_ansible_lint_finds_nothing_in_its_strictest_profile(said: str) -> None:
    """What the profile `production` asks of roles that others run."""
    assert "Passed: 0 failure(s), 0 warning(s)" in said


def test_every_playbook_and_role_is_understood(said: str) -> None:
    """Syntax, and that every role and file of tasks that one names is there: Ansible was asked about each."""
    wanted = {f"playbook {path.name}" for path in FOLDER.glob("*.yml")}
    wanted |= {f"role roles/{path.name}" for path in FOLDER.glob("roles/*")}
    checked = [line.partition("syntax check on ")[2] for line in said.splitlines()]
    assert wanted <= {words.partition(" (")[0] for words in checked}


def _linted(home: Path) -> subprocess.CompletedProcess[str]:
    program = tool("ansible-lint")
    assert program is not None
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
        "PATH": f"{Path(program).parent}:{os.environ['PATH']}",
        "ANSIBLE_HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        # Some name a machine, and no inventory of a fleet has it.
        "ANSIBLE_HOST_PATTERN_MISMATCH": "warning",
    }
    words = [program, "--offline", "--profile", "production", "--nocolor", "-v", "--exclude", "molecule/"]
    return subprocess.run(words, cwd=FOLDER, env=environ, check=False, capture_output=True, text=True, timeout=WITHIN_S)

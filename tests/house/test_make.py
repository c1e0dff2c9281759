"""The Makefile: what it lists, and that CI calls what people call."""

from __future__ import annotations

import re
from pathlib import Path


def test_help_lists_every_target(root: Path) -> None:
    """A target that `make help` does not show is not found by anybody."""
    makefile = (root / "Makefile").read_text()
    phony = {name for line in re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE) for name in line.split()}
    listed = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert {name for name in phony if not name.startswith(".")} == listed


def test_ci_runs_exactly_make_test(root: Path) -> None:
    """What is green here is green there."""
    lines = (root / ".ci/run").read_text().splitlines()
    assert [line for line in lines if "make" in line and not line.startswith("#")] == ["exec make test"]


def test_every_locked_requirement_has_a_hash(root: Path) -> None:
    """Pip refuses a lock that is half hashed; say so before a newcomer meets it."""
    for lock in (root / "requirements").glob("*.txt"):
        blocks = re.split(r"\n(?=[A-Za-z0-9])", lock.read_text())
        assert not [block.split()[0] for block in blocks if "==" in block and "--hash=sha256:" not in block], lock.name
